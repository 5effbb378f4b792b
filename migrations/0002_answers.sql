-- What a provider tells of an answer beside its text, what a failed attempt brought all the same, and
-- a view of its own for each prompt whose answers have fields.

ALTER TABLE attempts ADD COLUMN tokens_thought INTEGER;
ALTER TABLE attempts ADD COLUMN finish_reason TEXT;    -- as the provider says it
ALTER TABLE attempts ADD COLUMN model_version TEXT;    -- likewise
ALTER TABLE attempts ADD COLUMN truncated INTEGER NOT NULL DEFAULT 0 CHECK (truncated IN (0, 1));

-- The last text of a request that was no good: cut off, not the JSON that was asked for, failed its
-- check. It was paid for, and it shows what is wrong.
CREATE TABLE drafts (
    request_id INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,                 -- the attempt that brought it
    text       TEXT    NOT NULL,
    FOREIGN KEY (request_id, number) REFERENCES attempts (request_id, number)
) STRICT;

-- The views that prompts have made for themselves, so that they are not taken for others.
CREATE TABLE prompt_views (
    name   TEXT PRIMARY KEY COLLATE NOCASE,
    prompt TEXT NOT NULL UNIQUE
) STRICT;

DROP VIEW results;

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
       requests.id                                                       AS request_id,
       attempts.tokens_thought                                           AS tokens_thought,
       attempts.finish_reason                                            AS finish_reason,
       attempts.model_version                                            AS model_version,
       attempts.truncated                                                AS truncated
FROM responses
JOIN requests ON requests.id = responses.request_id
JOIN attempts ON attempts.request_id = responses.request_id AND attempts.number = responses.number
JOIN words ON words.id = requests.word_id
JOIN prompts ON prompts.id = requests.prompt_id
ORDER BY responses.request_id;   -- as the words were added, unless asked otherwise

DROP VIEW failures;

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
       requests.id                                                       AS request_id,
       drafts.text                                                       AS draft
FROM prompts
JOIN requests INDEXED BY requests_failed
     ON requests.prompt_id = prompts.id AND requests.state = 'failed'
JOIN attempts ON attempts.request_id = requests.id AND attempts.number = requests.attempts
JOIN words ON words.id = requests.word_id
LEFT JOIN drafts ON drafts.request_id = requests.id;
