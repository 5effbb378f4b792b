-- The columns of the lists whose words a prompt was given: its view shows them beside the answers.
CREATE TABLE prompt_columns (
    prompt TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    nth    INTEGER NOT NULL,                     -- in the order in which they came
    PRIMARY KEY (prompt, name)
) STRICT, WITHOUT ROWID;

DROP VIEW failures;

CREATE VIEW failures AS
SELECT request_details.word, request_details.outcome, request_details.reason,
       request_details.status_code, request_details.attempts, request_details.failures,
       request_details.prompt, request_details.version, request_details.provider,
       request_details.model,
       strftime('%Y-%m-%dT%H:%M:%fZ', request_details.finished_at_ms / 1000.0, 'unixepoch')
           AS failed_at,
       request_details.word_id, request_details.request_id, request_details.draft,
       attempts.reason_code, request_details.current  -- 0: there is a newer version of the prompt
FROM request_details
JOIN attempts ON attempts.request_id = request_details.request_id
             AND attempts.number = request_details.attempts
WHERE request_details.state = 'failed';
