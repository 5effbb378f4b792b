-- What holds a run back is on record, so that others can tell why a request is not being asked, and
-- one join says what became of a request.

-- The options of a run that hold something back, as a JSON object: see crawler/ledger/runs.py.
ALTER TABLE runs ADD COLUMN options TEXT NOT NULL DEFAULT '{}' CHECK (options LIKE '{%}');
ALTER TABLE runs ADD COLUMN budget_left REAL;       -- NULL: it has no budget

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
       drafts.text            AS draft
FROM requests
JOIN words ON words.id = requests.word_id
JOIN prompts ON prompts.id = requests.prompt_id
LEFT JOIN attempts AS last ON last.request_id = requests.id AND last.number = requests.attempts
LEFT JOIN responses ON responses.request_id = requests.id
LEFT JOIN drafts ON drafts.request_id = requests.id;

DROP VIEW results;

CREATE VIEW results AS
SELECT word, text, prompt, version, provider, model, fields, tokens_in, tokens_out, attempts,
       finished_at_ms - started_at_ms                                    AS duration_ms,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch')  AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       word_id, request_id, tokens_thought, finish_reason, model_version, truncated
FROM request_details
WHERE text IS NOT NULL
ORDER BY request_id;   -- as the words were added, unless asked otherwise

DROP VIEW failures;

CREATE VIEW failures AS
SELECT word, outcome, reason, status_code, attempts, failures, prompt, version, provider, model,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_ms / 1000.0, 'unixepoch') AS failed_at,
       word_id, request_id, draft
FROM request_details
WHERE state = 'failed';
