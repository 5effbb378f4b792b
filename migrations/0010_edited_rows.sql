-- People edit rows with other programs, which have foreign keys off. What the crawl stands on is kept,
-- and each refusal names the command that does what is likely meant. REPLACE runs no triggers of DELETE:
-- it is refused where a row of the same key is there.

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

DROP TRIGGER requests_transition;

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
    UPDATE tallies
    SET pending   = pending   + (new.state = 'pending')   - (old.state = 'pending'),
        leased    = leased    + (new.state = 'leased')    - (old.state = 'leased'),
        succeeded = succeeded + (new.state = 'succeeded') - (old.state = 'succeeded'),
        failed    = failed    + (new.state = 'failed')    - (old.state = 'failed'),
        cancelled = cancelled + (new.state = 'cancelled') - (old.state = 'cancelled')
    WHERE prompt_id = new.prompt_id;
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
