-- The ledger: words and prompts in, requests and attempts between, responses out.
--
-- The scheduler is a transaction on these tables (crawler/ledger/turn.py), so they carry its rules:
-- what may follow what is refused here as well, for the program and for anyone with sqlite3.
-- Time is integer milliseconds since 1970 UTC; views show it as ISO-8601 text.
--
-- Lists of words are tested with OR, not IN: for an IN of three and more SQLite builds a table each
-- time it looks, and that alone would double the cost of a request.

CREATE TABLE words (
    id          INTEGER PRIMARY KEY,             -- in the order in which they were added
    text        TEXT    NOT NULL UNIQUE CHECK (text <> ''),
    fields      TEXT    CHECK (fields LIKE '{%}'),  -- a JSON object
    added_at_ms INTEGER NOT NULL
) STRICT;

-- The quota that prompts share. The gate closes for all of them when the server refuses or is away;
-- with strikes on record a single call goes ahead to try it.
CREATE TABLE limits (
    id                INTEGER PRIMARY KEY,
    name              TEXT    NOT NULL UNIQUE CHECK (name <> ''),
    concurrency       INTEGER NOT NULL CHECK (concurrency > 0),
    per_minute        INTEGER CHECK (per_minute > 0),   -- NULL: no limit
    paused_at_ms      INTEGER,                          -- NULL: not paused
    gate_closed_at_ms INTEGER NOT NULL DEFAULT 0,
    gate_opens_at_ms  INTEGER NOT NULL DEFAULT 0,
    gate_strikes      INTEGER NOT NULL DEFAULT 0 CHECK (gate_strikes >= 0),
    gate_reason       TEXT
) STRICT;

-- A version never changes: what was asked for an answer can always be read here.
CREATE TABLE prompts (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL CHECK (name <> ''),
    version       INTEGER NOT NULL CHECK (version > 0),
    template      TEXT    NOT NULL,
    provider      TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    params        TEXT    NOT NULL CHECK (params LIKE '{%}'),
    limit_id      INTEGER NOT NULL REFERENCES limits (id),
    current       INTEGER NOT NULL CHECK (current IN (0, 1)),  -- what the name stands for today
    created_at_ms INTEGER NOT NULL,
    UNIQUE (name, version),
    UNIQUE (name, template, provider, model, params)
) STRICT;

CREATE UNIQUE INDEX prompts_current ON prompts (name) WHERE current = 1;

-- One life of a scheduler process.
CREATE TABLE runs (
    id              INTEGER PRIMARY KEY,
    pid             INTEGER NOT NULL,
    host            TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    started_at_ms   INTEGER NOT NULL,
    heartbeat_at_ms INTEGER NOT NULL,
    ended_at_ms     INTEGER,
    reason          TEXT,                        -- why it ended
    late_answers    INTEGER NOT NULL DEFAULT 0,  -- came after the attempt was taken from it
    CHECK ((ended_at_ms IS NULL) = (reason IS NULL))
) STRICT;

CREATE INDEX runs_live ON runs (id) WHERE ended_at_ms IS NULL;

-- The time of the file: time since boot + offset, agreed on once, so that all processes of a machine
-- read the same clock, whatever happens to the wall clock or while the machine sleeps.
CREATE TABLE clocks (
    boot_id   TEXT    PRIMARY KEY,
    offset_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE requests (
    id         INTEGER PRIMARY KEY,
    word_id    INTEGER NOT NULL REFERENCES words (id),
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    state      TEXT    NOT NULL DEFAULT 'pending'
               CHECK (state = 'pending' OR state = 'leased' OR state = 'succeeded'
                      OR state = 'failed' OR state = 'cancelled'),
    due_at_ms  INTEGER NOT NULL DEFAULT 0,       -- 0: fresh; it never had to wait
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures   INTEGER NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),
    cancelling INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)),  -- once its attempt ends
    UNIQUE (word_id, prompt_id)
) STRICT;

-- One partial index for each question that a turn asks, and none over all states: a heap of done,
-- waiting or fresh rows makes no other question slower.
CREATE INDEX requests_fresh ON requests (prompt_id, id)
    WHERE state = 'pending' AND due_at_ms = 0;
CREATE INDEX requests_waiting ON requests (prompt_id, due_at_ms, id)
    WHERE state = 'pending' AND due_at_ms > 0;
CREATE INDEX requests_failed ON requests (prompt_id, id) WHERE state = 'failed';
CREATE INDEX requests_cancelled ON requests (prompt_id, id) WHERE state = 'cancelled';

-- One call each. The open attempt is the lease; (request_id, number) is its fencing token.
CREATE TABLE attempts (
    request_id     INTEGER NOT NULL,            -- of requests: see the trigger attempts_insert
    number         INTEGER NOT NULL CHECK (number > 0),
    run_id         INTEGER NOT NULL REFERENCES runs (id),
    limit_id       INTEGER NOT NULL REFERENCES limits (id),
    started_at_ms  INTEGER NOT NULL,
    finished_at_ms INTEGER CHECK (finished_at_ms >= started_at_ms),
    outcome        TEXT    CHECK (outcome IS NULL OR outcome = 'succeeded'
                                  OR outcome = 'transient' OR outcome = 'throttled' OR outcome = 'unavailable' OR outcome = 'rejected'
                                  OR outcome = 'blocked' OR outcome = 'denied'
                                  OR outcome = 'interrupted' OR outcome = 'abandoned'),
    reason         TEXT,
    status_code    INTEGER,
    retry_after_ms INTEGER,
    tokens_in      INTEGER,
    tokens_out     INTEGER,
    PRIMARY KEY (request_id, number),
    CHECK ((finished_at_ms IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempts_lease ON attempts (request_id) WHERE finished_at_ms IS NULL;
CREATE INDEX attempts_open ON attempts (limit_id, run_id, started_at_ms)
    WHERE finished_at_ms IS NULL;
CREATE INDEX attempts_started ON attempts (limit_id, started_at_ms);

-- Apart from the hot rows, so that a retry never rewrites a text.
CREATE TABLE responses (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                 -- the attempt that brought it
    text       TEXT    NOT NULL,
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

-- How many requests of a prompt are in each state; kept by the triggers below, so that asking
-- costs the same with ten rows and with ten million.
CREATE TABLE tallies (
    prompt_id INTEGER PRIMARY KEY REFERENCES prompts (id),
    pending   INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
    leased    INTEGER NOT NULL DEFAULT 0 CHECK (leased >= 0),
    succeeded INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    failed    INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    cancelled INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0)
) STRICT;

CREATE TRIGGER prompts_insert AFTER INSERT ON prompts
BEGIN
    INSERT INTO tallies (prompt_id) VALUES (new.id);
END;

CREATE TRIGGER prompts_are_immutable
BEFORE UPDATE OF id, name, version, template, provider, model, params, limit_id, created_at_ms
ON prompts
BEGIN
    SELECT raise(ABORT, 'a prompt version never changes: add a new version');
END;

CREATE TRIGGER requests_insert AFTER INSERT ON requests
BEGIN
    SELECT raise(ABORT, 'a request begins as pending')
    WHERE new.state <> 'pending' OR new.attempts <> 0;
    UPDATE tallies SET pending = pending + 1 WHERE prompt_id = new.prompt_id;
END;

-- The legal transitions of crawler/states.py, arrow for arrow.
CREATE TRIGGER requests_transition AFTER UPDATE OF state ON requests
BEGIN
    SELECT raise(ABORT, 'not a legal transition of a request')
    WHERE NOT CASE old.state
        WHEN 'pending' THEN new.state = 'leased' OR new.state = 'cancelled'
        WHEN 'leased' THEN new.state = 'succeeded' OR new.state = 'pending'
                           OR new.state = 'failed' OR new.state = 'cancelled'
        WHEN 'failed' THEN new.state = 'pending'
        WHEN 'cancelled' THEN new.state = 'pending'
        ELSE 0
    END;
    SELECT raise(ABORT, 'a request succeeds with its response')
    WHERE new.state = 'succeeded'
      AND NOT EXISTS (SELECT 1 FROM responses WHERE request_id = new.id);
    UPDATE tallies
    SET pending   = pending   + (new.state = 'pending')   - (old.state = 'pending'),
        leased    = leased    + (new.state = 'leased')    - (old.state = 'leased'),
        succeeded = succeeded + (new.state = 'succeeded') - (old.state = 'succeeded'),
        failed    = failed    + (new.state = 'failed')    - (old.state = 'failed'),
        cancelled = cancelled + (new.state = 'cancelled') - (old.state = 'cancelled')
    WHERE prompt_id = new.prompt_id;
END;

CREATE TRIGGER requests_keep_their_identity BEFORE UPDATE OF id, word_id, prompt_id ON requests
BEGIN
    SELECT raise(ABORT, 'a request belongs to its word and prompt for good');
END;

CREATE TRIGGER words_keep_their_text BEFORE UPDATE OF id, text, added_at_ms ON words
BEGIN
    SELECT raise(ABORT, 'a word never changes');
END;

CREATE TRIGGER words_keep_their_fields BEFORE UPDATE OF fields ON words
WHEN old.fields IS NOT NULL AND new.fields IS NOT old.fields
BEGIN
    SELECT raise(ABORT, 'the fields of a word never change');
END;

CREATE TRIGGER requests_are_not_replaced BEFORE INSERT ON requests
WHEN EXISTS (SELECT 1 FROM requests WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'requests are never replaced');
END;

CREATE TRIGGER requests_are_kept BEFORE DELETE ON requests
BEGIN
    SELECT raise(ABORT, 'requests are never deleted: cancel them');
END;

CREATE TRIGGER attempts_insert BEFORE INSERT ON attempts
WHEN NOT EXISTS (SELECT 1 FROM requests
                 WHERE id = new.request_id AND state = 'leased' AND attempts = new.number)
BEGIN
    SELECT raise(ABORT, 'an attempt is the next one of a leased request');
END;

CREATE TRIGGER attempts_end_once BEFORE UPDATE ON attempts WHEN old.finished_at_ms IS NOT NULL
BEGIN
    SELECT raise(ABORT, 'an ended attempt never changes');
END;

CREATE TRIGGER attempts_are_kept BEFORE DELETE ON attempts
BEGIN
    SELECT raise(ABORT, 'attempts are never deleted');
END;

CREATE TRIGGER responses_never_change BEFORE UPDATE ON responses
BEGIN
    SELECT raise(ABORT, 'a response never changes');
END;

CREATE TRIGGER responses_are_kept BEFORE DELETE ON responses
BEGIN
    SELECT raise(ABORT, 'responses are never deleted');
END;

-- The views are the public face of the file: their names and columns are kept stable.

CREATE VIEW results AS
SELECT words.text                                                        AS word,
       responses.text                                                    AS text,
       prompts.name                                                      AS prompt,
       prompts.version                                                   AS version,
       prompts.provider                                                  AS provider,
       prompts.model                                                     AS model,
       words.fields                                                      AS fields,
       attempts.tokens_in                                                AS tokens_in,
       attempts.tokens_out                                               AS tokens_out,
       requests.attempts                                                 AS attempts,
       attempts.finished_at_ms - attempts.started_at_ms                  AS duration_ms,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempts.started_at_ms / 1000.0, 'unixepoch')  AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempts.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       words.id                                                          AS word_id,
       requests.id                                                       AS request_id
FROM responses
JOIN requests ON requests.id = responses.request_id
JOIN attempts ON attempts.request_id = responses.request_id AND attempts.number = responses.number
JOIN words ON words.id = requests.word_id
JOIN prompts ON prompts.id = requests.prompt_id
ORDER BY responses.request_id;   -- as the words were added, unless asked otherwise

CREATE VIEW failures AS
SELECT words.text                                                        AS word,
       attempts.outcome                                                  AS outcome,
       attempts.reason                                                   AS reason,
       attempts.status_code                                              AS status_code,
       requests.attempts                                                 AS attempts,
       requests.failures                                                 AS failures,
       prompts.name                                                      AS prompt,
       prompts.version                                                   AS version,
       prompts.provider                                                  AS provider,
       prompts.model                                                     AS model,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempts.finished_at_ms / 1000.0, 'unixepoch') AS failed_at,
       words.id                                                          AS word_id,
       requests.id                                                       AS request_id
FROM prompts
JOIN requests INDEXED BY requests_failed
     ON requests.prompt_id = prompts.id AND requests.state = 'failed'
JOIN attempts ON attempts.request_id = requests.id AND attempts.number = requests.attempts
JOIN words ON words.id = requests.word_id;

CREATE VIEW progress AS
SELECT prompts.name     AS prompt,
       prompts.version  AS version,
       prompts.provider AS provider,
       prompts.model    AS model,
       pending + leased + succeeded + failed + cancelled AS requests,
       pending, leased, succeeded, failed, cancelled
FROM prompts
JOIN tallies ON tallies.prompt_id = prompts.id;

CREATE VIEW throughput_per_minute AS
SELECT strftime('%Y-%m-%dT%H:%M:00Z', attempts.started_at_ms / 1000, 'unixepoch') AS minute_at,
       limits.name                                 AS "limit",
       count(*)                                    AS started,
       sum(attempts.outcome IS 'succeeded')        AS succeeded,
       sum(attempts.outcome IS 'throttled')        AS throttled,
       sum(attempts.outcome IN ('transient', 'unavailable', 'abandoned')) AS failed,
       sum(attempts.tokens_in)                     AS tokens_in,
       sum(attempts.tokens_out)                    AS tokens_out
FROM attempts
JOIN limits ON limits.id = attempts.limit_id
GROUP BY attempts.limit_id, attempts.started_at_ms / 60000;
