-- made of migrations 636538f7
-- All that the other files here add up to: a new database is made by it. Where one of them
-- is changed or added it is not used, until scripts/schema has renewed it.

CREATE TABLE words (
    id          INTEGER PRIMARY KEY,             -- in the order in which they were added
    text        TEXT    NOT NULL CHECK (text <> ''),
    fields      TEXT    CHECK (fields LIKE '{%}'),  -- a JSON object
    added_at_ms INTEGER NOT NULL
, key TEXT, revision INTEGER NOT NULL DEFAULT 1 CHECK (revision > 0)) STRICT;

CREATE UNIQUE INDEX words_by_key ON words (coalesce(key, text));

CREATE TABLE limits (
    id                INTEGER PRIMARY KEY,
    name              TEXT    NOT NULL UNIQUE CHECK (name <> ''),
    per_minute        INTEGER CHECK (per_minute > 0),   -- NULL: no limit
    paused_at_ms      INTEGER,                          -- NULL: not paused
    gate_closed_at_ms INTEGER NOT NULL DEFAULT 0,
    gate_opens_at_ms  INTEGER NOT NULL DEFAULT 0,
    gate_strikes      INTEGER NOT NULL DEFAULT 0 CHECK (gate_strikes >= 0),
    gate_reason       TEXT
, tokens_per_minute INTEGER CHECK (tokens_per_minute > 0), adaptive INTEGER NOT NULL DEFAULT 1 CHECK (adaptive IN (0, 1)), paused_until_ms INTEGER, started INTEGER NOT NULL DEFAULT 0, tokens_tat_us INTEGER NOT NULL DEFAULT 0, rate REAL, plateau REAL NOT NULL DEFAULT 0, window_seen_at_ms INTEGER NOT NULL DEFAULT -1000000000, gate_cause TEXT
    CHECK (gate_cause = 'quota' OR gate_cause = 'day' OR gate_cause = 'outage'), gate_since_ms INTEGER NOT NULL DEFAULT 0, concurrency INTEGER CHECK (concurrency > 0), tat_us INTEGER, noise REAL NOT NULL DEFAULT 0, trial REAL NOT NULL DEFAULT 0, cut_at_ms INTEGER NOT NULL DEFAULT -1000000000, width REAL NOT NULL DEFAULT 10 CHECK (width >= 1), round_at_ms INTEGER NOT NULL DEFAULT -1000000000, speed REAL NOT NULL DEFAULT 0, told_per_minute INTEGER CHECK (told_per_minute > 0), told_tokens_per_minute INTEGER CHECK (told_tokens_per_minute > 0)) STRICT;

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
    created_at_ms INTEGER NOT NULL, removed_at_ms INTEGER,
    UNIQUE (name, version),
    UNIQUE (name, template, provider, model, params)
) STRICT;

CREATE UNIQUE INDEX prompts_current ON prompts (name) WHERE current = 1;

CREATE TABLE runs (
    id              INTEGER PRIMARY KEY,
    pid             INTEGER NOT NULL,
    host            TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    started_at_ms   INTEGER NOT NULL,
    heartbeat_at_ms INTEGER NOT NULL,
    ended_at_ms     INTEGER,
    reason          TEXT,                        -- why it ended
    late_answers    INTEGER NOT NULL DEFAULT 0, boot_id TEXT NOT NULL DEFAULT '', options TEXT NOT NULL DEFAULT '{}' CHECK (options LIKE '{%}'), budget_left REAL,  -- came after the attempt was taken from it
    CHECK ((ended_at_ms IS NULL) = (reason IS NULL))
) STRICT;

CREATE INDEX runs_live ON runs (id) WHERE ended_at_ms IS NULL;

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
    cancelling INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)), no_answers INTEGER NOT NULL DEFAULT 0
    CHECK (no_answers >= 0), removed_at_ms INTEGER, superseded INTEGER NOT NULL DEFAULT 0
    CHECK (superseded = 0 OR superseded = 1), replaces INTEGER, place INTEGER
, changed INTEGER NOT NULL DEFAULT 0
    CHECK (changed = 0 OR changed = 1)) STRICT;

CREATE UNIQUE INDEX requests_of_word ON requests (word_id, prompt_id) WHERE superseded = 0;

CREATE INDEX requests_fresh ON requests (prompt_id, id)
    WHERE state = 'pending' AND due_at_ms = 0;

CREATE INDEX requests_waiting ON requests (prompt_id, due_at_ms, id)
    WHERE state = 'pending' AND due_at_ms > 0;

CREATE INDEX requests_failed ON requests (prompt_id, id) WHERE state = 'failed';

CREATE INDEX requests_cancelled ON requests (prompt_id, id) WHERE state = 'cancelled';

CREATE TABLE attempts (
    request_id     INTEGER NOT NULL,            -- of requests: see the trigger attempts_insert
    number         INTEGER NOT NULL CHECK (number > 0),
    run_id         INTEGER NOT NULL REFERENCES runs (id),
    limit_id       INTEGER NOT NULL REFERENCES limits (id),
    started_at_ms  INTEGER NOT NULL,
    finished_at_ms INTEGER CHECK (finished_at_ms >= started_at_ms),
    outcome        TEXT    CHECK (outcome IS NULL OR outcome = 'succeeded'
                                  OR outcome = 'transient' OR outcome = 'throttled' OR outcome = 'unavailable' OR outcome = 'rejected'
                                  OR outcome = 'blocked' OR outcome = 'denied' OR outcome = 'refused' OR outcome = 'no_money' OR outcome = 'no_answer'
                                  OR outcome = 'interrupted' OR outcome = 'abandoned'),
    reason         TEXT,
    status_code    INTEGER,
    retry_after_ms INTEGER,
    tokens_in      INTEGER,
    tokens_out     INTEGER, tokens_thought INTEGER, finish_reason TEXT, model_version TEXT, truncated INTEGER NOT NULL DEFAULT 0 CHECK (truncated IN (0, 1)), nth INTEGER NOT NULL DEFAULT 0, tokens_reserved INTEGER, reason_code TEXT, tokens_cached INTEGER, details TEXT, revision INTEGER,
    PRIMARY KEY (request_id, number),
    CHECK ((finished_at_ms IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempts_lease ON attempts (request_id) WHERE finished_at_ms IS NULL;

CREATE INDEX attempts_open ON attempts (limit_id, run_id, started_at_ms)
    WHERE finished_at_ms IS NULL;

CREATE TABLE responses (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                 -- the attempt that brought it
    text       TEXT    NOT NULL, thoughts TEXT,
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

CREATE TABLE tallies (
    prompt_id INTEGER PRIMARY KEY REFERENCES prompts (id),
    pending   INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
    leased    INTEGER NOT NULL DEFAULT 0 CHECK (leased >= 0),
    succeeded INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    failed    INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    cancelled INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0)
, tokens_per_char REAL NOT NULL DEFAULT 0.25, tokens_out_mean REAL NOT NULL DEFAULT 250, served_at_ms INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0 CHECK (removed >= 0)) STRICT;

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

CREATE TABLE drafts (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                 -- the attempt that brought it
    text       TEXT    NOT NULL,
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

CREATE TABLE prompt_views (
    name   TEXT PRIMARY KEY COLLATE NOCASE,
    prompt TEXT NOT NULL UNIQUE
) STRICT;

CREATE INDEX attempts_started ON attempts (limit_id, started_at_ms, nth);

CREATE INDEX attempts_throttled ON attempts (limit_id, started_at_ms) WHERE outcome = 'throttled';

CREATE TABLE limit_changes (
    id       INTEGER PRIMARY KEY,
    limit_id INTEGER NOT NULL REFERENCES limits (id),
    at_ms    INTEGER NOT NULL,
    what     TEXT    NOT NULL,
    rate     REAL,                               -- calls a minute, from here on
    until_ms INTEGER,                            -- of a gate or a pause
    why      TEXT
, started INTEGER) STRICT;

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

CREATE INDEX attempts_doubted ON attempts (finished_at_ms)
    WHERE outcome = 'refused' OR outcome = 'denied' OR outcome = 'no_money' OR outcome = 'no_answer'
       OR truncated = 1;

CREATE TRIGGER words_are_kept BEFORE DELETE ON words
BEGIN
    SELECT raise(ABORT, 'words are never deleted: crawler cancel WORD has it not asked');
END;

CREATE TRIGGER words_are_not_replaced BEFORE INSERT ON words
WHEN EXISTS (SELECT 1 FROM words WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'words are never replaced: crawler add adds what is new');
END;

CREATE TRIGGER prompts_are_kept BEFORE DELETE ON prompts
BEGIN
    SELECT raise(ABORT, 'prompts are never deleted: crawler cancel --all --prompt NAME');
END;

CREATE TRIGGER prompts_are_not_replaced BEFORE INSERT ON prompts
WHEN EXISTS (SELECT 1 FROM prompts WHERE id = new.id OR (name = new.name AND version = new.version))
BEGIN
    SELECT raise(ABORT, 'a prompt version never changes: crawler prompt add makes a new one');
END;

CREATE TRIGGER requests_have_sane_times BEFORE UPDATE OF due_at_ms ON requests
WHEN new.due_at_ms < 0 OR new.due_at_ms > 253402300799999
BEGIN
    SELECT raise(ABORT, 'a request is due at a time in ms since 1970: crawler retry has it asked now');
END;

CREATE TRIGGER responses_are_not_replaced BEFORE INSERT ON responses
WHEN EXISTS (SELECT 1 FROM responses WHERE request_id = new.request_id)
BEGIN
    SELECT raise(ABORT, 'responses are never replaced: a new version of the prompt asks again');
END;

CREATE TRIGGER tallies_are_kept BEFORE DELETE ON tallies
BEGIN
    SELECT raise(ABORT, 'the counts of a prompt are kept: crawler check --repair counts again');
END;

CREATE TRIGGER limits_are_kept BEFORE DELETE ON limits
BEGIN
    SELECT raise(ABORT, 'limits are never deleted: crawler limit NAME sets them');
END;

CREATE TRIGGER limits_are_not_replaced BEFORE INSERT ON limits
WHEN EXISTS (SELECT 1 FROM limits WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'limits are never replaced: crawler limit NAME sets them');
END;

CREATE TRIGGER runs_are_kept BEFORE DELETE ON runs
BEGIN
    SELECT raise(ABORT, 'runs are never deleted: the next run ends those that are dead');
END;

CREATE TABLE owners (
    user      TEXT    NOT NULL CHECK (user <> ''),
    host      TEXT    NOT NULL,
    how       TEXT    NOT NULL CHECK (how = 'made' OR how = 'trusted' OR how = 'moved'),
    since_ms  INTEGER NOT NULL,
    open_told INTEGER NOT NULL DEFAULT 0 CHECK (open_told IN (0, 1)),  -- 1: that others may read it
    PRIMARY KEY (user, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE prompt_columns (
    prompt TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    nth    INTEGER NOT NULL,                     -- in the order in which they came
    PRIMARY KEY (prompt, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_superseded ON requests (word_id, prompt_id) WHERE superseded = 1;

CREATE INDEX requests_placed ON requests (prompt_id, place) WHERE place NOT NULL;

CREATE INDEX requests_removed ON requests (prompt_id, word_id) WHERE removed_at_ms IS NOT NULL;

CREATE INDEX requests_in_order ON requests (coalesce(place, id)) WHERE superseded = 0;

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

CREATE INDEX requests_changed ON requests (prompt_id, id) WHERE changed = 1;

CREATE INDEX words_keyed ON words (text) WHERE key NOT NULL;

CREATE TABLE revisions (
    word_id     INTEGER NOT NULL REFERENCES words (id),
    number      INTEGER NOT NULL CHECK (number > 0),
    text        TEXT    NOT NULL,
    fields      TEXT,
    key         TEXT,
    ended_at_ms INTEGER NOT NULL,
    PRIMARY KEY (word_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX revisions_by_key ON revisions (coalesce(key, text));

CREATE TRIGGER revisions_never_change BEFORE UPDATE ON revisions
BEGIN
    SELECT raise(ABORT, 'a revision never changes');
END;

CREATE TRIGGER revisions_are_kept BEFORE DELETE ON revisions
BEGIN
    SELECT raise(ABORT, 'revisions are never deleted');
END;

CREATE TRIGGER revisions_are_not_replaced BEFORE INSERT ON revisions
WHEN EXISTS (SELECT 1 FROM revisions WHERE word_id = new.word_id AND number = new.number)
BEGIN
    SELECT raise(ABORT, 'revisions are never replaced');
END;

CREATE TRIGGER words_keep_their_identity BEFORE UPDATE OF id, added_at_ms ON words
BEGIN
    SELECT raise(ABORT, 'a word is the same for good');
END;

CREATE TRIGGER words_change_by_revisions BEFORE UPDATE OF text, fields, key, revision ON words
WHEN (new.text <> old.text OR new.key IS NOT old.key OR new.revision <> old.revision
      OR new.fields IS NOT old.fields
         AND (old.fields NOT NULL  -- what had none may get them until it is asked about
              OR EXISTS (SELECT 1 FROM requests WHERE word_id = old.id AND superseded = 0 AND attempts > 0)
              OR EXISTS (SELECT 1 FROM requests WHERE word_id = old.id AND superseded = 1 AND attempts > 0)))
 AND (new.revision <> old.revision + 1
      OR NOT EXISTS (SELECT 1 FROM revisions
                     WHERE word_id = old.id AND number = old.revision AND text = old.text
                       AND fields IS old.fields AND key IS old.key))
BEGIN
    SELECT raise(ABORT, 'a word changes by a revision: crawler rename OLD NEW, crawler add LIST --update');
END;

CREATE VIEW request_details AS
SELECT requests.id            AS request_id,
       words.id               AS word_id,
       prompts.id             AS prompt_id,
       words.text             AS word,
       words.fields           AS fields,
       requests.state         AS state,
       requests.due_at_ms     AS due_at_ms,
       requests.attempts      AS attempts,
       requests.failures      AS failures,
       prompts.name           AS prompt,
       prompts.version        AS version,
       prompts.current        AS current,
       prompts.provider       AS provider,
       prompts.model          AS model,
       last.run_id            AS run_id,
       last.started_at_ms     AS started_at_ms,
       last.finished_at_ms    AS finished_at_ms,
       last.outcome           AS outcome,
       last.reason            AS reason,
       last.status_code       AS status_code,
       last.tokens_in         AS tokens_in,
       last.tokens_out        AS tokens_out,
       last.tokens_thought    AS tokens_thought,
       last.finish_reason     AS finish_reason,
       last.model_version     AS model_version,
       coalesce(last.truncated, 0) AS truncated,
       responses.text         AS text,
       drafts.text            AS draft,
       last.reason_code       AS reason_code,
       requests.superseded    AS superseded,
       requests.removed_at_ms AS removed_at_ms,
       substr(words.key, 2)   AS key,
       requests.changed       AS changed,
       last.revision          AS revision
FROM requests
JOIN words ON words.id = requests.word_id
JOIN prompts ON prompts.id = requests.prompt_id
LEFT JOIN attempts AS last ON last.request_id = requests.id AND last.number = requests.attempts
LEFT JOIN responses ON responses.request_id = requests.id
LEFT JOIN drafts ON drafts.request_id = requests.id;

CREATE TABLE key_columns (
    nth     INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    is_word INTEGER NOT NULL CHECK (is_word = 0 OR is_word = 1)  -- 1: that of the word itself
) STRICT;

CREATE TABLE reviews (
    id         INTEGER PRIMARY KEY,
    request_id INTEGER NOT NULL REFERENCES responses (request_id),
    mark       TEXT    NOT NULL CHECK (mark = 'good' OR mark = 'bad' OR mark = 'none'),
    note       TEXT,
    by         TEXT    NOT NULL,                 -- who, as the system knows them
    at_ms      INTEGER NOT NULL
) STRICT;

CREATE INDEX reviews_of_answer ON reviews (request_id, id);

CREATE TRIGGER reviews_never_change BEFORE UPDATE ON reviews
BEGIN
    SELECT raise(ABORT, 'a mark never changes: crawler mark makes a new one');
END;

CREATE TRIGGER reviews_are_kept BEFORE DELETE ON reviews
BEGIN
    SELECT raise(ABORT, 'marks are never deleted: crawler mark none takes one off');
END;

CREATE TRIGGER reviews_are_not_replaced BEFORE INSERT ON reviews
WHEN EXISTS (SELECT 1 FROM reviews WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'marks are never replaced: crawler mark makes a new one');
END;

CREATE VIEW list_details AS
SELECT standing.id            AS standing_id,
       coalesce(standing.place, standing.id) AS place,
       standing.word_id       AS word_id,
       standing.prompt_id     AS asked_by_id,
       standing.state         AS state,
       coalesce(standing.removed_at_ms, asked_by.removed_at_ms) AS removed_at_ms,
       shown.text NOT NULL AND (shown.current = 0 OR shown.changed = 1) AS stale,
       shown.request_id       AS request_id,
       shown.prompt_id        AS prompt_id,
       shown.word             AS word,
       shown.fields           AS fields,
       shown.attempts         AS attempts,
       shown.prompt           AS prompt,
       shown.version          AS version,
       shown.current          AS current,
       shown.provider         AS provider,
       shown.model            AS model,
       shown.started_at_ms    AS started_at_ms,
       shown.finished_at_ms   AS finished_at_ms,
       shown.reason           AS reason,
       shown.reason_code      AS reason_code,
       shown.tokens_in        AS tokens_in,
       shown.tokens_out       AS tokens_out,
       shown.tokens_thought   AS tokens_thought,
       shown.finish_reason    AS finish_reason,
       shown.model_version    AS model_version,
       shown.truncated        AS truncated,
       shown.text             AS text,
       shown.key              AS key,
       shown.changed          AS changed,
       (SELECT nullif(mark, 'none') FROM reviews WHERE reviews.request_id = shown.request_id
        ORDER BY reviews.id DESC LIMIT 1) AS review,
       (SELECT note FROM reviews WHERE reviews.request_id = shown.request_id
        ORDER BY reviews.id DESC LIMIT 1) AS note
FROM requests AS standing
JOIN prompts AS asked_by ON asked_by.id = standing.prompt_id
JOIN request_details AS shown
  ON shown.request_id = CASE WHEN standing.replaces IS NULL OR standing.state = 'succeeded'
                             THEN standing.id ELSE standing.replaces END
WHERE standing.superseded = 0;

CREATE VIEW results AS
SELECT word, text, prompt, version, provider, model, fields, tokens_in, tokens_out, attempts,
       finished_at_ms - started_at_ms                                    AS duration_ms,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch')  AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       word_id, request_id, tokens_thought, finish_reason, model_version, truncated, stale, key,
       review, note
FROM list_details
WHERE text IS NOT NULL AND removed_at_ms IS NULL
ORDER BY place;
