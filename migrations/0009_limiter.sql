-- What a limit learns, in 16 columns: the fields of crawler/quota/state.py, which say what they mean.
-- Limits stay as they were set, and what was learned of a rate is where learning goes on.

ALTER TABLE limits RENAME COLUMN concurrency TO concurrency_before;
ALTER TABLE limits ADD COLUMN concurrency INTEGER CHECK (concurrency > 0);  -- NULL: it finds itself
UPDATE limits SET concurrency = concurrency_before;
ALTER TABLE limits DROP COLUMN concurrency_before;

ALTER TABLE limits RENAME COLUMN tat_us TO tat_before_us;
ALTER TABLE limits ADD COLUMN tat_us INTEGER;  -- when the next start is due; NULL: a window at once
UPDATE limits SET tat_us = tat_before_us WHERE bursting = 0;
ALTER TABLE limits DROP COLUMN tat_before_us;

UPDATE limits SET plateau = 0 WHERE doubling = 1;
ALTER TABLE limits ADD COLUMN noise REAL NOT NULL DEFAULT 0;   -- share of refusals that no rate explains
ALTER TABLE limits ADD COLUMN trial REAL NOT NULL DEFAULT 0;   -- the rate at which it was seen; 0: believed
ALTER TABLE limits ADD COLUMN cut_at_ms INTEGER NOT NULL DEFAULT -1000000000;  -- when the rate began anew
UPDATE limits SET cut_at_ms = grown_at_ms WHERE rate IS NOT NULL;
ALTER TABLE limits ADD COLUMN width REAL NOT NULL DEFAULT 10 CHECK (width >= 1);  -- found concurrency
ALTER TABLE limits ADD COLUMN round_at_ms INTEGER NOT NULL DEFAULT -1000000000;   -- when its round began
ALTER TABLE limits ADD COLUMN speed REAL NOT NULL DEFAULT 0;   -- answers a minute of the round before

ALTER TABLE limits ADD COLUMN told_per_minute INTEGER CHECK (told_per_minute > 0);  -- by the server
ALTER TABLE limits ADD COLUMN told_tokens_per_minute INTEGER CHECK (told_tokens_per_minute > 0);

ALTER TABLE limits DROP COLUMN age_ms;
ALTER TABLE limits DROP COLUMN grown_at_ms;
ALTER TABLE limits DROP COLUMN bursting;
ALTER TABLE limits DROP COLUMN burst_began_at_ms;
ALTER TABLE limits DROP COLUMN burst_starts;
ALTER TABLE limits DROP COLUMN served;
ALTER TABLE limits DROP COLUMN doubling;
ALTER TABLE limits DROP COLUMN young;
ALTER TABLE limits DROP COLUMN starts_since_cut;
ALTER TABLE limits DROP COLUMN refusals_since_cut;
ALTER TABLE limits DROP COLUMN episode_cost;
ALTER TABLE limits DROP COLUMN episode_refusals;
ALTER TABLE limits DROP COLUMN accepted;
ALTER TABLE limits DROP COLUMN refusal_ms;
ALTER TABLE limits DROP COLUMN failures;
ALTER TABLE limits DROP COLUMN gate_gap_ms;
