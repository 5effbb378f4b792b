-- What a limit learns of its quota, and remembers: a restart is no amnesty. The names are those of
-- crawler/pace.py, which alone knows what to make of them.

ALTER TABLE limits ADD COLUMN tokens_per_minute INTEGER CHECK (tokens_per_minute > 0);  -- NULL: none
ALTER TABLE limits ADD COLUMN adaptive INTEGER NOT NULL DEFAULT 1 CHECK (adaptive IN (0, 1));
ALTER TABLE limits ADD COLUMN paused_until_ms INTEGER;      -- NULL: until somebody resumes
ALTER TABLE limits ADD COLUMN started INTEGER NOT NULL DEFAULT 0;  -- attempts, ever

ALTER TABLE limits ADD COLUMN tat_us INTEGER NOT NULL DEFAULT 0;   -- theoretical arrival time
ALTER TABLE limits ADD COLUMN tokens_tat_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN rate REAL;                    -- calls a minute; NULL: not learned
ALTER TABLE limits ADD COLUMN plateau REAL NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN age_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN grown_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN bursting INTEGER NOT NULL DEFAULT 1 CHECK (bursting IN (0, 1));
ALTER TABLE limits ADD COLUMN burst_began_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN burst_starts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN served INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN doubling INTEGER NOT NULL DEFAULT 0 CHECK (doubling IN (0, 1));
ALTER TABLE limits ADD COLUMN young INTEGER NOT NULL DEFAULT 1 CHECK (young IN (0, 1));
ALTER TABLE limits ADD COLUMN starts_since_cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN refusals_since_cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN window_seen_at_ms INTEGER NOT NULL DEFAULT -1000000000;
ALTER TABLE limits ADD COLUMN episode_cost REAL NOT NULL DEFAULT 1.5;
ALTER TABLE limits ADD COLUMN episode_refusals INTEGER NOT NULL DEFAULT 1;
ALTER TABLE limits ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN refusal_ms REAL NOT NULL DEFAULT 150;
ALTER TABLE limits ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN gate_cause TEXT
    CHECK (gate_cause = 'quota' OR gate_cause = 'day' OR gate_cause = 'outage');
ALTER TABLE limits ADD COLUMN gate_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE limits ADD COLUMN gate_gap_ms INTEGER NOT NULL DEFAULT 0;

-- A gate that stood closed opens: what is behind it is found out again.
UPDATE limits SET gate_strikes = 0, gate_opens_at_ms = 0, gate_reason = NULL;

-- How many of its limit's attempts had started with this one. The starts since a moment are a
-- subtraction of two of these, however many there are. Those made before have none, so that a window
-- that reaches back to them counts as full: for the first minute after this migration, at the most.
ALTER TABLE attempts ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN tokens_reserved INTEGER;    -- NULL: its limit did not count tokens
UPDATE limits SET started = (SELECT count(*) FROM attempts WHERE limit_id = limits.id);

DROP INDEX attempts_started;
CREATE INDEX attempts_started ON attempts (limit_id, started_at_ms, nth);
CREATE INDEX attempts_throttled ON attempts (limit_id, started_at_ms) WHERE outcome = 'throttled';

-- What a request of a prompt uses, learned from its answers; for limits that count tokens.
ALTER TABLE tallies ADD COLUMN tokens_per_char REAL NOT NULL DEFAULT 0.25;
ALTER TABLE tallies ADD COLUMN tokens_out_mean REAL NOT NULL DEFAULT 250;

-- Each change of a limit, by whoever made it.
CREATE TABLE limit_changes (
    id       INTEGER PRIMARY KEY,
    limit_id INTEGER NOT NULL REFERENCES limits (id),
    at_ms    INTEGER NOT NULL,
    what     TEXT    NOT NULL,
    rate     REAL,                               -- calls a minute, from here on
    until_ms INTEGER,                            -- of a gate or a pause
    why      TEXT
) STRICT;

CREATE VIEW limit_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', limit_changes.at_ms / 1000.0, 'unixepoch')    AS changed_at,
       limits.name                                                                  AS "limit",
       limit_changes.what                                                           AS what,
       limit_changes.rate                                                           AS per_minute,
       strftime('%Y-%m-%dT%H:%M:%fZ', limit_changes.until_ms / 1000.0, 'unixepoch') AS until_at,
       limit_changes.why                                                            AS why
FROM limit_changes
JOIN limits ON limits.id = limit_changes.limit_id
ORDER BY limit_changes.id;
