-- The schema of a database as the newest migration (15) leaves it. For readers; a database
-- is made by the files in migrations/, in their order. Renew this page: scripts/schema
--
-- Times are whole milliseconds since 1970 UTC. Views show them as ISO-8601 text.
-- The views results, failures, progress, throughput_per_minute and limit_history are for users:
-- their names and columns are kept.

-- ---- What is asked ----

-- The items that are asked about.
CREATE TABLE words (
    id          INTEGER PRIMARY KEY,                  -- in the order in which they were added
    text        TEXT NOT NULL CHECK (text <> ''),
    fields      TEXT CHECK (fields LIKE '{%}'),       -- a JSON object
    added_at_ms INTEGER NOT NULL,
    key         TEXT,                                 -- what tells it from others; NULL: its text
    revision    INTEGER NOT NULL DEFAULT 1 CHECK (revision > 0)
) STRICT;

CREATE UNIQUE INDEX words_by_key ON words (coalesce(key, text));

CREATE INDEX words_keyed ON words (text) WHERE key NOT NULL;

CREATE TRIGGER words_are_kept BEFORE DELETE ON words
BEGIN
    SELECT raise(ABORT, 'words are never deleted: crawler cancel WORD has it not asked');
END;

CREATE TRIGGER words_are_not_replaced BEFORE INSERT ON words
WHEN EXISTS (SELECT 1 FROM words WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'words are never replaced: crawler add adds what is new');
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

-- What a word was before it was corrected.
CREATE TABLE revisions (
    word_id     INTEGER NOT NULL REFERENCES words (id),
    number      INTEGER NOT NULL CHECK (number > 0),
    text        TEXT NOT NULL,
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

-- The columns of which the key of an item is made, in their order; none: its text is.
CREATE TABLE key_columns (
    nth     INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    is_word INTEGER NOT NULL CHECK (is_word = 0 OR is_word = 1)  -- 1: that of the word itself
) STRICT;

-- A version of a prompt. It never changes; a change makes a new version.
CREATE TABLE prompts (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL CHECK (name <> ''),
    version       INTEGER NOT NULL CHECK (version > 0),
    template      TEXT NOT NULL,
    provider      TEXT NOT NULL,
    model         TEXT NOT NULL,
    params        TEXT NOT NULL CHECK (params LIKE '{%}'),  -- a JSON object
    limit_id      INTEGER NOT NULL REFERENCES limits (id),  -- the quota that its calls share
    current       INTEGER NOT NULL CHECK (current IN (0, 1)),  -- what the name stands for today
    created_at_ms INTEGER NOT NULL,
    removed_at_ms INTEGER,                            -- NULL: it is asked
    UNIQUE (name, version),
    UNIQUE (name, template, provider, model, params)
) STRICT;

-- One version of a name is the current one.
CREATE UNIQUE INDEX prompts_current ON prompts (name) WHERE current = 1;

-- Each prompt has its counts.
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

CREATE TRIGGER prompts_are_kept BEFORE DELETE ON prompts
BEGIN
    SELECT raise(ABORT, 'prompts are never deleted: crawler cancel --all --prompt NAME');
END;

CREATE TRIGGER prompts_are_not_replaced BEFORE INSERT ON prompts
WHEN EXISTS (SELECT 1 FROM prompts WHERE id = new.id OR (name = new.name AND version = new.version))
BEGIN
    SELECT raise(ABORT, 'a prompt version never changes: crawler prompt add makes a new one');
END;

-- The views that prompts with a schema have made for their answers.
CREATE TABLE prompt_views (
    name   TEXT PRIMARY KEY COLLATE NOCASE,
    prompt TEXT NOT NULL UNIQUE
) STRICT;

-- The columns of the lists that prompts were given, for their views.
CREATE TABLE prompt_columns (
    prompt TEXT NOT NULL,
    name   TEXT NOT NULL,
    nth    INTEGER NOT NULL,                          -- in the order in which they came
    PRIMARY KEY (prompt, name)
) STRICT, WITHOUT ROWID;

-- ---- What became of it ----

-- One word and one prompt: a question, and where it stands.
CREATE TABLE requests (
    id            INTEGER PRIMARY KEY,
    word_id       INTEGER NOT NULL REFERENCES words (id),
    prompt_id     INTEGER NOT NULL REFERENCES prompts (id),
    state         TEXT NOT NULL DEFAULT 'pending' CHECK (state = 'pending' OR state = 'leased' OR
                  state = 'succeeded' OR state = 'failed' OR state = 'cancelled'),
    due_at_ms     INTEGER NOT NULL DEFAULT 0,         -- 0: fresh; it never had to wait
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- its own, since the last retry by a person
    failures      INTEGER NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),
    -- 1: cancelled once its open attempt ends
    cancelling    INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)),
    -- since it was last added or retried
    no_answers    INTEGER NOT NULL DEFAULT 0 CHECK (no_answers >= 0),
    removed_at_ms INTEGER,                            -- NULL: on the list of its prompt
    -- 1: another one stands in its place
    superseded    INTEGER NOT NULL DEFAULT 0 CHECK (superseded = 0 OR superseded = 1),
    replaces      INTEGER,                            -- whose answer counts until it has its own
    place         INTEGER,                            -- in the list; NULL: its id
    -- 1: its template uses what was corrected since
    changed       INTEGER NOT NULL DEFAULT 0 CHECK (changed = 0 OR changed = 1)
) STRICT;

CREATE UNIQUE INDEX requests_of_word ON requests (word_id, prompt_id) WHERE superseded = 0;

-- One partial index for each question that a turn asks, and none over all states: a heap of
-- done, waiting or fresh rows makes no other question slower.
CREATE INDEX requests_fresh ON requests (prompt_id, id) WHERE state = 'pending' AND due_at_ms = 0;

CREATE INDEX requests_waiting ON requests (prompt_id, due_at_ms, id)
    WHERE state = 'pending' AND due_at_ms > 0;

CREATE INDEX requests_failed ON requests (prompt_id, id) WHERE state = 'failed';

CREATE INDEX requests_cancelled ON requests (prompt_id, id) WHERE state = 'cancelled';

CREATE INDEX requests_superseded ON requests (word_id, prompt_id) WHERE superseded = 1;

CREATE INDEX requests_placed ON requests (prompt_id, place) WHERE place NOT NULL;

CREATE INDEX requests_removed ON requests (prompt_id, word_id) WHERE removed_at_ms IS NOT NULL;

CREATE INDEX requests_in_order ON requests (coalesce(place, id)) WHERE superseded = 0;

CREATE INDEX requests_changed ON requests (prompt_id, id) WHERE changed = 1;

CREATE TRIGGER requests_are_not_replaced BEFORE INSERT ON requests
WHEN EXISTS (SELECT 1 FROM requests WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'requests are never replaced');
END;

CREATE TRIGGER requests_are_kept BEFORE DELETE ON requests
BEGIN
    SELECT raise(ABORT, 'requests are never deleted: cancel them');
END;

CREATE TRIGGER requests_have_sane_times BEFORE UPDATE OF due_at_ms ON requests
WHEN new.due_at_ms < 0 OR new.due_at_ms > 253402300799999
BEGIN
    SELECT raise(ABORT, 'a request is due at a time in ms since 1970: crawler retry has it asked now');
END;

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

-- The legal transitions of crawler/states.py, arrow for arrow. Who leases makes an attempt.
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

-- One call each. The open attempt is the lease; (request_id, number) is its fencing token.
CREATE TABLE attempts (
    -- of requests: see the trigger attempts_insert
    request_id      INTEGER NOT NULL,
    number          INTEGER NOT NULL CHECK (number > 0),  -- 1 for the first of its request
    run_id          INTEGER NOT NULL REFERENCES runs (id),
    limit_id        INTEGER NOT NULL REFERENCES limits (id),  -- that of its prompt

    -- When it began and how it ended.
    started_at_ms   INTEGER NOT NULL,
    -- NULL: open, the call is in flight
    finished_at_ms  INTEGER CHECK (finished_at_ms >= started_at_ms),
    -- see crawler/states.py
    outcome         TEXT CHECK (outcome IS NULL OR outcome = 'succeeded' OR outcome = 'transient' OR
                    outcome = 'throttled' OR outcome = 'unavailable' OR outcome = 'rejected' OR
                    outcome = 'blocked' OR outcome = 'denied' OR outcome = 'refused' OR
                    outcome = 'no_money' OR outcome = 'no_answer' OR outcome = 'interrupted' OR
                    outcome = 'abandoned'),
    reason          TEXT,
    status_code     INTEGER,
    retry_after_ms  INTEGER,                          -- the pause that the server asked for

    -- What it used; NULL: not known.
    tokens_in       INTEGER,
    tokens_out      INTEGER,
    -- tokens that the model thought before its answer
    tokens_thought  INTEGER,
    finish_reason   TEXT,                             -- as the provider says it
    model_version   TEXT,                             -- likewise
    -- 1: cut off where no more tokens were allowed
    truncated       INTEGER NOT NULL DEFAULT 0 CHECK (truncated IN (0, 1)),

    -- Which start of its limit this is, counted from 1: the starts since a moment are a
    -- subtraction of two of these. Below 0: the request could not be sent, so the attempt took no
    -- place of the window; the next start has that number without its sign. 0: made before starts
    -- were numbered.
    nth             INTEGER NOT NULL DEFAULT 0,
    tokens_reserved INTEGER,                          -- NULL: its limit did not count tokens
    -- the kind of a refusal: see crawler/states/kinds.py
    reason_code     TEXT,
    tokens_cached   INTEGER,                          -- of tokens_in: read from a cache
    details         TEXT,                             -- a JSON object, in the service's names
    revision        INTEGER,                          -- of its word that was sent; NULL: the first
    PRIMARY KEY (request_id, number),
    CHECK ((finished_at_ms IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempts_lease ON attempts (request_id) WHERE finished_at_ms IS NULL;

-- The open attempts of a limit or a run.
CREATE INDEX attempts_open ON attempts (limit_id, run_id, started_at_ms)
    WHERE finished_at_ms IS NULL;

-- The starts of a limit: its window.
CREATE INDEX attempts_started ON attempts (limit_id, started_at_ms, nth);

-- The refusals of a limit.
CREATE INDEX attempts_throttled ON attempts (limit_id, started_at_ms) WHERE outcome = 'throttled';

-- What may be the fault of a prompt, an account or a network; see crawler/ledger/doubt.py.
CREATE INDEX attempts_doubted ON attempts (finished_at_ms)
    WHERE outcome = 'refused' OR outcome = 'denied' OR outcome = 'no_money' OR outcome = 'no_answer' OR truncated = 1;

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

-- The answers. Apart from requests, so that a retry never rewrites a text.
CREATE TABLE responses (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                      -- the attempt that brought it
    text       TEXT NOT NULL,
    thoughts   TEXT,                                  -- what the model thought before its answer
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

CREATE TRIGGER responses_never_change BEFORE UPDATE ON responses
BEGIN
    SELECT raise(ABORT, 'a response never changes');
END;

CREATE TRIGGER responses_are_kept BEFORE DELETE ON responses
BEGIN
    SELECT raise(ABORT, 'responses are never deleted');
END;

CREATE TRIGGER responses_are_not_replaced BEFORE INSERT ON responses
WHEN EXISTS (SELECT 1 FROM responses WHERE request_id = new.request_id)
BEGIN
    SELECT raise(ABORT, 'responses are never replaced: a new version of the prompt asks again');
END;

-- A mark belongs to an answer: a new one has none. The newest counts, and none takes it off.
CREATE TABLE reviews (
    id         INTEGER PRIMARY KEY,
    request_id INTEGER NOT NULL REFERENCES responses (request_id),
    mark       TEXT NOT NULL CHECK (mark = 'good' OR mark = 'bad' OR mark = 'none'),
    note       TEXT,
    by         TEXT NOT NULL,                         -- who, as the system knows them
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

-- The last text of a request that was no good: cut off, not the JSON that was asked for,
-- failed its check. It was paid for, and it shows what is wrong.
CREATE TABLE drafts (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                      -- the attempt that brought it
    text       TEXT NOT NULL,
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

-- How many requests of a prompt are in each state. The triggers prompts_insert,
-- requests_insert and requests_transition keep it, so that to ask costs the same with ten rows
-- and with ten million.
CREATE TABLE tallies (
    prompt_id       INTEGER PRIMARY KEY REFERENCES prompts (id),
    pending         INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
    leased          INTEGER NOT NULL DEFAULT 0 CHECK (leased >= 0),
    succeeded       INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    failed          INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    cancelled       INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),

    -- What a request of a prompt uses, learned from its answers; for limits that count tokens.
    tokens_per_char REAL NOT NULL DEFAULT 0.25,
    tokens_out_mean REAL NOT NULL DEFAULT 250,
    served_at_ms    INTEGER NOT NULL DEFAULT 0,       -- the newest answer or block
    removed         INTEGER NOT NULL DEFAULT 0 CHECK (removed >= 0)
) STRICT;

CREATE TRIGGER tallies_are_kept BEFORE DELETE ON tallies
BEGIN
    SELECT raise(ABORT, 'the counts of a prompt are kept: crawler check --repair counts again');
END;

-- ---- Who asks ----

-- One life of a process that crawls.
CREATE TABLE runs (
    id              INTEGER PRIMARY KEY,
    pid             INTEGER NOT NULL,
    host            TEXT NOT NULL,
    version         TEXT NOT NULL,
    started_at_ms   INTEGER NOT NULL,
    heartbeat_at_ms INTEGER NOT NULL,                 -- moves while it turns
    ended_at_ms     INTEGER,
    reason          TEXT,                             -- why it ended: see crawler/run/ending.py
    late_answers    INTEGER NOT NULL DEFAULT 0,       -- came after the attempt was taken from it

    -- The start of the machine that a run belongs to: it can't outlive that. Empty: not known.
    boot_id         TEXT NOT NULL DEFAULT '',

    -- The options of a run that hold something back, as a JSON object: see crawler/ledger/runs.py.
    options         TEXT NOT NULL DEFAULT '{}' CHECK (options LIKE '{%}'),
    budget_left     REAL,                             -- NULL: it has no budget
    CHECK ((ended_at_ms IS NULL) = (reason IS NULL))
) STRICT;

-- The runs that have not ended.
CREATE INDEX runs_live ON runs (id) WHERE ended_at_ms IS NULL;

CREATE TRIGGER runs_are_kept BEFORE DELETE ON runs
BEGIN
    SELECT raise(ABORT, 'runs are never deleted: the next run ends those that are dead');
END;

-- The time of the file: time since boot + offset, agreed on once, so that all processes of a
-- machine read the same clock, whatever happens to the wall clock or while the machine sleeps.
CREATE TABLE clocks (
    boot_id   TEXT PRIMARY KEY,
    offset_ms INTEGER NOT NULL
) STRICT;

-- ---- Quotas ----

-- A quota that prompts share, and what has been learned of it.
CREATE TABLE limits (
    id                     INTEGER PRIMARY KEY,

    -- What a person sets.
    name                   TEXT NOT NULL UNIQUE CHECK (name <> ''),
    per_minute             INTEGER CHECK (per_minute > 0),  -- NULL: no limit
    paused_at_ms           INTEGER,                   -- NULL: not paused

    -- The gate: a refusal or an outage closes it for all calls.
    -- ... and last: a call that started later tries it
    gate_closed_at_ms      INTEGER NOT NULL DEFAULT 0,
    gate_opens_at_ms       INTEGER NOT NULL DEFAULT 0,  -- when a single call may try it
    -- calls that have tried it in vain, and the first of all
    gate_strikes           INTEGER NOT NULL DEFAULT 0 CHECK (gate_strikes >= 0),
    gate_reason            TEXT,                      -- what the refusal or failure said

    -- What a person sets, continued.
    tokens_per_minute      INTEGER CHECK (tokens_per_minute > 0),  -- NULL: none
    -- 1: it learns from refusals
    adaptive               INTEGER NOT NULL DEFAULT 1 CHECK (adaptive IN (0, 1)),
    paused_until_ms        INTEGER,                   -- NULL: until somebody resumes

    -- How many attempts have started under it, ever.
    started                INTEGER NOT NULL DEFAULT 0,  -- attempts, ever

    -- What is learned: see crawler/quota/state.py.
    -- when all tokens that were taken have flowed in again
    tokens_tat_us          INTEGER NOT NULL DEFAULT 0,
    -- calls a minute that are right now; NULL: nothing was refused yet
    rate                   REAL,
    -- the rate believed to be right; 0: all that is known is that more is
    plateau                REAL NOT NULL DEFAULT 0,
    -- when a window was last found to be used up
    window_seen_at_ms      INTEGER NOT NULL DEFAULT -1000000000,

    -- The gate, continued.
    gate_cause             TEXT CHECK (gate_cause = 'quota' OR gate_cause = 'day' OR
                           gate_cause = 'outage'),

    -- when it closed first, ...
    gate_since_ms          INTEGER NOT NULL DEFAULT 0,
    concurrency            INTEGER CHECK (concurrency > 0),  -- NULL: it finds itself
    -- when the next start is due; NULL: a window at once
    tat_us                 INTEGER,
    noise                  REAL NOT NULL DEFAULT 0,   -- share of refusals that no rate explains
    trial                  REAL NOT NULL DEFAULT 0,   -- the rate at which it was seen; 0: believed
    cut_at_ms              INTEGER NOT NULL DEFAULT -1000000000,  -- when the rate began anew
    width                  REAL NOT NULL DEFAULT 10 CHECK (width >= 1),  -- found concurrency
    round_at_ms            INTEGER NOT NULL DEFAULT -1000000000,  -- when its round began
    speed                  REAL NOT NULL DEFAULT 0,   -- answers a minute of the round before

    -- What the server has told; NULL: nothing.
    told_per_minute        INTEGER CHECK (told_per_minute > 0),  -- by the server
    told_tokens_per_minute INTEGER CHECK (told_tokens_per_minute > 0)
) STRICT;

CREATE TRIGGER limits_are_kept BEFORE DELETE ON limits
BEGIN
    SELECT raise(ABORT, 'limits are never deleted: crawler limit NAME sets them');
END;

CREATE TRIGGER limits_are_not_replaced BEFORE INSERT ON limits
WHEN EXISTS (SELECT 1 FROM limits WHERE id = new.id)
BEGIN
    SELECT raise(ABORT, 'limits are never replaced: crawler limit NAME sets them');
END;

-- Each change of a limit, by whoever made it.
CREATE TABLE limit_changes (
    id       INTEGER PRIMARY KEY,
    limit_id INTEGER NOT NULL REFERENCES limits (id),
    at_ms    INTEGER NOT NULL,
    -- set, told, paused, gate_closed, rate_lowered, concurrency_raised, …
    what     TEXT NOT NULL,
    rate     REAL,                                    -- calls a minute, from here on
    until_ms INTEGER,                                 -- of a gate or a pause
    why      TEXT,

    -- How many attempts had started under a limit when it changed: a change is for the starts
    -- after them. By number, since a clock may jump between a setting and the starts that it is
    -- for. NULL: not known.
    started  INTEGER
) STRICT;

-- ---- The file ----

-- The migrations that have been applied. One whose text has changed is refused.
CREATE TABLE migrations (
    version       INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    applied_at_ms INTEGER NOT NULL
) STRICT;

-- Who works with this file, on which machine. A file in which a person has no row is somebody
-- else's: nothing is written to it, and nobody is asked for it, before that person trusts it
-- (--trust).
CREATE TABLE owners (
    user      TEXT NOT NULL CHECK (user <> ''),
    host      TEXT NOT NULL,
    -- made, trusted, or moved from another machine
    how       TEXT NOT NULL CHECK (how = 'made' OR how = 'trusted' OR how = 'moved'),
    since_ms  INTEGER NOT NULL,
    open_told INTEGER NOT NULL DEFAULT 0 CHECK (open_told IN (0, 1)),  -- 1: that others may read it
    PRIMARY KEY (user, host)
) STRICT, WITHOUT ROWID;

-- ---- Views ----

-- The answers: a row for each request that has succeeded.
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

-- The requests that have failed for good, and why; current is 0 where the prompt has a newer
-- version.
CREATE VIEW failures AS
SELECT word, outcome, reason, status_code, attempts, failures, prompt, version, provider, model,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch') AS failed_at,
       word_id, request_id, draft, reason_code,
       current                              -- 0: there is a newer version of the prompt
FROM request_details
WHERE state = 'failed' AND superseded = 0 AND removed_at_ms IS NULL
  AND prompt_id NOT IN (SELECT id FROM prompts WHERE removed_at_ms NOT NULL);

-- One row a request: its item, its prompt, its last attempt and its response. An attempt that
-- has succeeded is the last one of its request, so that the last attempt is also the
-- response's.
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

-- One row a word on the list of a prompt, as its standing request has it; where that has no
-- answer yet and replaces one, all but the first columns is of the request that brought that.
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

-- How many requests of each prompt version are in each state.
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

-- Calls by the minute in which they started.
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

-- Each change of a limit.
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
