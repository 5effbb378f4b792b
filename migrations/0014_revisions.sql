-- Items may be corrected, and told apart by several columns. What was sent stays readable: the old text
-- and fields are kept as revisions, and an attempt says from which one it was rendered.

ALTER TABLE words ADD COLUMN key TEXT;           -- what tells it from others; NULL: its text
ALTER TABLE words ADD COLUMN revision INTEGER NOT NULL DEFAULT 1 CHECK (revision > 0);
ALTER TABLE attempts ADD COLUMN revision INTEGER;    -- of its word that was sent; NULL: the first
ALTER TABLE requests ADD COLUMN changed INTEGER NOT NULL DEFAULT 0
    CHECK (changed = 0 OR changed = 1);          -- 1: its template uses what was corrected since

-- The index of that UNIQUE is the one of the keys, entry for entry, as no word has another key so far.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'TEXT    NOT NULL UNIQUE CHECK (text <> '''')', 'TEXT    NOT NULL CHECK (text <> '''')')
WHERE type = 'table' AND name = 'words';
UPDATE sqlite_schema
SET name = 'words_by_key',
    sql = 'CREATE UNIQUE INDEX words_by_key ON words (coalesce(key, text))'
WHERE type = 'index' AND name = 'sqlite_autoindex_words_1';
PRAGMA writable_schema = RESET;

CREATE INDEX requests_changed ON requests (prompt_id, id) WHERE changed = 1;
CREATE INDEX words_keyed ON words (text) WHERE key NOT NULL;

-- What a word was before it was corrected.
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

DROP TRIGGER words_keep_their_text;
DROP TRIGGER words_keep_their_fields;

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

-- One row a request: its item, its prompt, its last attempt and its response. An attempt that has
-- succeeded is the last one of its request, so that the last attempt is also the response's.
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
