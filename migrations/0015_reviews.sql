-- What tells the items of the lists apart, and what people think of answers.

-- The columns of which the key of an item is made, in their order; none: its text is.
CREATE TABLE key_columns (
    nth     INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    is_word INTEGER NOT NULL CHECK (is_word = 0 OR is_word = 1)  -- 1: that of the word itself
) STRICT;

-- A mark belongs to an answer: a new one has none. The newest counts, and none takes it off.
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

-- One row a word on the list of a prompt, as its standing request has it; where that has no answer
-- yet and replaces one, all but the first columns is of the request that brought that.
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
ORDER BY place;   -- as the words were added, unless asked otherwise
