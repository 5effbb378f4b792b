-- Whose fault a refusal is, and what an answer is. The kind of a refusal is kept with its attempt, and
-- three outcomes are new: `refused` (it may be the prompt's fault: the verdict waits for others),
-- `no_money`, and `no_answer` (an answer came, and it is no good).

-- A CHECK of a table can't be changed by ALTER TABLE; this is the way that SQLite's documentation gives
-- for one that only allows more. No row is touched.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'OR outcome = ''denied''',
                  'OR outcome = ''denied'' OR outcome = ''refused'' OR outcome = ''no_money'' OR outcome = ''no_answer''')
WHERE type = 'table' AND name = 'attempts';
PRAGMA writable_schema = RESET;

ALTER TABLE attempts ADD COLUMN reason_code TEXT;            -- the kind of a refusal: see crawler/states/kinds.py
ALTER TABLE attempts ADD COLUMN tokens_cached INTEGER;       -- of tokens_in: read from a cache
ALTER TABLE responses ADD COLUMN thoughts TEXT;              -- what the model thought before its answer
ALTER TABLE requests ADD COLUMN no_answers INTEGER NOT NULL DEFAULT 0
    CHECK (no_answers >= 0);                                 -- since it was last added or retried
ALTER TABLE tallies ADD COLUMN served_at_ms INTEGER NOT NULL DEFAULT 0;  -- the newest answer or block

-- What may be the fault of a prompt, an account or a network; see crawler/ledger/doubt.py.
CREATE INDEX attempts_doubted ON attempts (finished_at_ms)
    WHERE outcome = 'refused' OR outcome = 'denied' OR outcome = 'no_money' OR truncated = 1;

DROP VIEW failures;

CREATE VIEW failures AS
SELECT request_details.word, request_details.outcome, request_details.reason,
       request_details.status_code, request_details.attempts, request_details.failures,
       request_details.prompt, request_details.version, request_details.provider,
       request_details.model,
       strftime('%Y-%m-%dT%H:%M:%fZ', request_details.finished_at_ms / 1000.0, 'unixepoch')
           AS failed_at,
       request_details.word_id, request_details.request_id, request_details.draft,
       attempts.reason_code
FROM request_details
JOIN attempts ON attempts.request_id = request_details.request_id
             AND attempts.number = request_details.attempts
WHERE request_details.state = 'failed';

DROP VIEW throughput_per_minute;

CREATE VIEW throughput_per_minute AS
SELECT strftime('%Y-%m-%dT%H:%M:00Z', attempts.started_at_ms / 1000, 'unixepoch') AS minute_at,
       limits.name                                 AS "limit",
       count(*)                                    AS started,
       sum(attempts.outcome IS 'succeeded')        AS succeeded,
       sum(attempts.outcome IS 'throttled')        AS throttled,
       sum(attempts.outcome IN ('transient', 'unavailable', 'abandoned', 'no_answer')) AS failed,
       sum(attempts.tokens_in)                     AS tokens_in,
       sum(attempts.tokens_out)                    AS tokens_out
FROM attempts
JOIN limits ON limits.id = attempts.limit_id
GROUP BY attempts.limit_id, attempts.started_at_ms / 60000;
