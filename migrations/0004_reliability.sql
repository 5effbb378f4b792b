-- How many attempts had started under a limit when it changed: a change is for the starts after them.
-- By number, since a clock may jump between a setting and the starts that it is for. NULL: not known.
ALTER TABLE limit_changes ADD COLUMN started INTEGER;

-- The start of the machine that a run belongs to: it can't outlive that. Empty: not known.
ALTER TABLE runs ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
