-- Words are taken off the list of a prompt, and asked again. A request stays one asking, which succeeds
-- once at the most: to ask again is a new request in the place of the one before. Of a word and the
-- name of a prompt one request is standing; the others are superseded.

ALTER TABLE requests ADD COLUMN removed_at_ms INTEGER;       -- NULL: on the list of its prompt
ALTER TABLE requests ADD COLUMN superseded INTEGER NOT NULL DEFAULT 0
    CHECK (superseded = 0 OR superseded = 1);                -- 1: another one stands in its place
ALTER TABLE requests ADD COLUMN replaces INTEGER;            -- whose answer counts until it has its own
ALTER TABLE requests ADD COLUMN place INTEGER;               -- in the list; NULL: its id
ALTER TABLE prompts ADD COLUMN removed_at_ms INTEGER;        -- NULL: it is asked
ALTER TABLE tallies ADD COLUMN removed INTEGER NOT NULL DEFAULT 0 CHECK (removed >= 0);

-- No word was asked twice by a version so far, so the index of that UNIQUE is the one of the standing
-- requests, entry for entry. It gets another name, and no row is touched.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, ',  -- once its attempt ends' || char(10) || '    UNIQUE (word_id, prompt_id)', '')
WHERE type = 'table' AND name = 'requests';
UPDATE sqlite_schema
SET name = 'requests_of_word',
    sql = 'CREATE UNIQUE INDEX requests_of_word ON requests (word_id, prompt_id) WHERE superseded = 0'
WHERE type = 'index' AND name = 'sqlite_autoindex_requests_1';
PRAGMA writable_schema = RESET;

CREATE INDEX requests_superseded ON requests (word_id, prompt_id) WHERE superseded = 1;
CREATE INDEX requests_placed ON requests (prompt_id, place) WHERE place NOT NULL;
CREATE INDEX requests_removed ON requests (prompt_id, word_id) WHERE removed_at_ms IS NOT NULL;
CREATE INDEX requests_in_order ON requests (coalesce(place, id)) WHERE superseded = 0;  -- of the list

-- Where a prompt has several versions: of a word's requests the one of the current version stands, or
-- of the newest that has one. What was answered before counts until that has its own answer.
UPDATE requests SET superseded = 1
WHERE prompt_id IN (SELECT own.id FROM prompts AS own JOIN prompts AS other USING (name)
                    WHERE own.id <> other.id)
  AND EXISTS (SELECT 1 FROM prompts AS own
              JOIN prompts AS other
                ON other.name = own.name AND (other.current, other.version) > (own.current, own.version)
              JOIN requests AS better INDEXED BY requests_of_word
                ON better.word_id = requests.word_id AND better.prompt_id = other.id
               AND better.superseded = 0
              WHERE own.id = requests.prompt_id);
UPDATE requests SET state = 'cancelled' WHERE superseded = 1 AND state = 'pending';
UPDATE requests SET cancelling = 1 WHERE superseded = 1 AND state = 'leased';
UPDATE requests
SET replaces = answered.id, place = requests.id
FROM (SELECT standing.id AS by_id,
             (SELECT old.id FROM prompts AS own JOIN prompts AS other USING (name)
              JOIN requests AS old INDEXED BY requests_superseded
                ON old.word_id = standing.word_id AND old.prompt_id = other.id
               AND old.superseded = 1
              WHERE own.id = standing.prompt_id AND old.state = 'succeeded'
              ORDER BY other.version DESC LIMIT 1) AS id
      FROM requests AS standing
      WHERE superseded = 0 AND state <> 'succeeded'
        AND word_id IN (SELECT word_id FROM requests WHERE superseded = 1)) AS answered
WHERE requests.id = by_id AND answered.id NOT NULL;
UPDATE tallies
SET succeeded = tallies.succeeded - gone.succeeded,
    failed    = tallies.failed    - gone.failed,
    cancelled = tallies.cancelled - gone.cancelled
FROM (SELECT prompt_id, sum(state = 'succeeded') AS succeeded, sum(state = 'failed') AS failed,
             sum(state = 'cancelled') AS cancelled
      FROM requests WHERE superseded = 1 GROUP BY prompt_id) AS gone
WHERE gone.prompt_id = tallies.prompt_id;

DROP TRIGGER requests_insert;
CREATE TRIGGER requests_insert AFTER INSERT ON requests
BEGIN
    SELECT raise(ABORT, 'a request begins as pending')
    WHERE new.state <> 'pending' OR new.attempts <> 0 OR new.superseded <> 0
       OR new.removed_at_ms NOT NULL;
    UPDATE tallies SET pending = pending + 1 WHERE prompt_id = new.prompt_id;
END;

CREATE TRIGGER requests_replace_answers AFTER INSERT ON requests WHEN new.replaces NOT NULL
BEGIN
    SELECT raise(ABORT, 'a request replaces an answer about its word')
    WHERE NOT EXISTS (SELECT 1 FROM requests AS old JOIN responses ON request_id = old.id
                      WHERE old.id = new.replaces AND old.word_id = new.word_id);
END;

-- A request counts in the state in which it is. One that is superseded or removed counts while it is
-- in flight; of those that have ended the removed ones are counted, and not their states.
DROP TRIGGER requests_transition;
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
    SELECT raise(ABORT, 'only a run leases, with an attempt: crawler run, crawler retry WORD')
    WHERE new.state = 'leased' AND new.attempts <> old.attempts + 1;
    SELECT raise(ABORT, 'a request succeeds with its response')
    WHERE new.state = 'succeeded'
      AND NOT EXISTS (SELECT 1 FROM responses WHERE request_id = new.id);
    SELECT raise(ABORT, 'what is removed or superseded is not asked: crawler add WORD, crawler retry WORD')
    WHERE (new.superseded = 1 OR new.removed_at_ms NOT NULL)
      AND (new.state = 'pending' OR new.state = 'leased');
    UPDATE tallies
    SET pending   = pending   + (new.state = 'pending')   - (old.state = 'pending'),
        leased    = leased    + (new.state = 'leased')    - (old.state = 'leased'),
        succeeded = succeeded + (new.state = 'succeeded') * (new.superseded = 0 AND new.removed_at_ms IS NULL)
                              - (old.state = 'succeeded'),
        failed    = failed    + (new.state = 'failed')    * (new.superseded = 0 AND new.removed_at_ms IS NULL)
                              - (old.state = 'failed'),
        cancelled = cancelled + (new.state = 'cancelled') * (new.superseded = 0 AND new.removed_at_ms IS NULL)
                              - (old.state = 'cancelled'),
        removed   = removed   + (new.removed_at_ms NOT NULL AND new.superseded = 0)
    WHERE prompt_id = new.prompt_id;
END;

CREATE TRIGGER requests_leave_the_list AFTER UPDATE OF superseded, removed_at_ms ON requests
BEGIN
    SELECT raise(ABORT, 'what is still to be asked is cancelled first: crawler remove WORD')
    WHERE (new.superseded = 1 OR new.removed_at_ms NOT NULL)
      AND (new.state = 'pending' OR new.state = 'leased' AND new.cancelling = 0);
    UPDATE tallies
    SET succeeded = succeeded + (new.state = 'succeeded') * entered,
        failed    = failed    + (new.state = 'failed')    * entered,
        cancelled = cancelled + (new.state = 'cancelled') * entered,
        removed   = removed   + (new.state <> 'leased')
                    * ((new.superseded = 0 AND new.removed_at_ms NOT NULL)
                       - (old.superseded = 0 AND old.removed_at_ms NOT NULL))
    FROM (SELECT (new.superseded = 0 AND new.removed_at_ms IS NULL)
                 - (old.superseded = 0 AND old.removed_at_ms IS NULL) AS entered)
    WHERE prompt_id = new.prompt_id;
END;

-- What has never been asked goes on to another version of its prompt when that is edited.
DROP TRIGGER requests_keep_their_identity;
CREATE TRIGGER requests_keep_their_identity
BEFORE UPDATE OF id, word_id, prompt_id, replaces, place ON requests
WHEN new.id <> old.id OR new.word_id <> old.word_id OR new.replaces IS NOT old.replaces
  OR new.place IS NOT old.place OR new.state <> 'pending' OR new.attempts <> 0
  OR NOT EXISTS (SELECT 1 FROM prompts AS own JOIN prompts AS other USING (name)
                 WHERE own.id = old.prompt_id AND other.id = new.prompt_id)
BEGIN
    SELECT raise(ABORT, 'a request belongs to its word and prompt for good');
END;

CREATE TRIGGER requests_go_on AFTER UPDATE OF prompt_id ON requests
BEGIN
    UPDATE tallies SET pending = pending - 1 WHERE prompt_id = old.prompt_id;
    UPDATE tallies SET pending = pending + 1 WHERE prompt_id = new.prompt_id;
END;

DROP VIEW results;
DROP VIEW failures;
DROP VIEW progress;
DROP VIEW request_details;
-- request_details is made anew in 0014; list_details, a row a word on a list, and results in 0015.

CREATE VIEW failures AS
SELECT word, outcome, reason, status_code, attempts, failures, prompt, version, provider, model,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch') AS failed_at,
       word_id, request_id, draft, reason_code,
       current                              -- 0: there is a newer version of the prompt
FROM request_details
WHERE state = 'failed' AND superseded = 0 AND removed_at_ms IS NULL
  AND prompt_id NOT IN (SELECT id FROM prompts WHERE removed_at_ms NOT NULL);

CREATE VIEW progress AS
SELECT prompts.name     AS prompt,
       prompts.version  AS version,
       prompts.provider AS provider,
       prompts.model    AS model,
       pending + leased + succeeded + failed + cancelled AS requests,
       pending, leased, succeeded, failed, cancelled, removed
FROM prompts
JOIN tallies ON tallies.prompt_id = prompts.id
WHERE prompts.removed_at_ms IS NULL
ORDER BY prompts.id;

-- The views of prompts show their answers as the list has them.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, ' FROM request_details WHERE prompt_id = ',
                  ' FROM list_details AS request_details WHERE removed_at_ms IS NULL AND prompt_id = ')
WHERE type = 'view' AND name IN (SELECT name FROM prompt_views);
PRAGMA writable_schema = RESET;

-- What a version that is not the current one has still to ask, the current one asks.
INSERT INTO requests (word_id, prompt_id, replaces, place)
SELECT word_id, newest.id, replaces, requests.id
FROM requests
JOIN prompts AS own ON own.id = prompt_id AND own.current = 0
JOIN prompts AS newest ON newest.name = own.name AND newest.current = 1
WHERE state = 'pending' AND superseded = 0;
UPDATE requests SET state = 'cancelled'
WHERE state = 'pending' AND superseded = 0
  AND prompt_id IN (SELECT id FROM prompts WHERE current = 0);
UPDATE requests SET superseded = 1
WHERE state = 'cancelled' AND superseded = 0
  AND prompt_id IN (SELECT id FROM prompts WHERE current = 0)
  AND id IN (SELECT place FROM requests WHERE place NOT NULL);
