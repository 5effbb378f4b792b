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

CREATE TRIGGER requests_are_leased BEFORE UPDATE OF state ON requests
WHEN new.state = 'leased' AND new.attempts <> old.attempts + 1
BEGIN
    SELECT raise(ABORT, 'only a run leases, with an attempt: crawler run, crawler retry WORD');
END;

CREATE TRIGGER attempts_are_not_replaced BEFORE INSERT ON attempts
WHEN EXISTS (SELECT 1 FROM attempts WHERE request_id = new.request_id AND number = new.number)
BEGIN
    SELECT raise(ABORT, 'attempts are never replaced: crawler retry WORD makes a new one');
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
