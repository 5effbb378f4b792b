"""The promises of the file as questions that must have no answer.

Rule: an invariant is a name, a sentence, and SQL that finds what breaks it. Each is one pass over a
table or two, so that a file with millions of rows is checked in seconds. The list begins with what
a schema can't be broken in without damage, and goes on to what only the program keeps.
"""

from crawler.ledger.invariants_of_limits import LIMITS, Invariant
from crawler.ledger.repair import COUNTS

_REQUESTS = (
    Invariant(
        "one_state",
        "a request is pending, leased, succeeded, failed or cancelled",
        "SELECT 'request ' || id FROM requests"
        " WHERE state NOT IN ('pending', 'leased', 'succeeded', 'failed', 'cancelled')",
    ),
    Invariant(
        "succeeded_has_response",
        "a request has succeeded exactly if it has a response",
        "SELECT 'request ' || requests.id FROM requests"
        " LEFT JOIN responses ON responses.request_id = requests.id"
        " WHERE (state = 'succeeded') <> (responses.request_id IS NOT NULL)",
    ),
    Invariant(
        "attempts_without_gaps",
        "the attempts of a request are numbered 1 to n, and it knows n",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN"
        " (SELECT request_id, count(*) AS n, max(number) AS last FROM attempts GROUP BY 1) AS made"
        " ON made.request_id = requests.id"
        " WHERE requests.attempts <> coalesce(n, 0) OR requests.attempts <> coalesce(last, 0)",
    ),
    Invariant(
        "leased_is_open",
        "a request is leased exactly while an attempt of it is open",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN attempts"
        " ON attempts.request_id = requests.id AND finished_at_ms IS NULL"
        " WHERE (state = 'leased') <> (attempts.request_id IS NOT NULL)",
    ),
    Invariant(
        "failed_has_cause",
        "a failed request ended with a failure on record",
        "SELECT 'request ' || requests.id FROM requests LEFT JOIN attempts"
        " ON attempts.request_id = requests.id AND attempts.number = requests.attempts"
        " WHERE state = 'failed' AND (outcome IS NULL OR outcome NOT IN"
        " ('transient', 'rejected', 'blocked', 'abandoned', 'refused', 'no_answer'))",
    ),
    Invariant(
        "failures_are_its_own",
        "a request has not failed more often than attempts that count as its failures",
        "SELECT 'request ' || id FROM requests WHERE failures > 0 AND failures >"
        " (SELECT count(*) FROM attempts WHERE request_id = requests.id"
        " AND (outcome = 'transient' OR outcome = 'abandoned'))",
    ),
    Invariant(
        "waits_for_a_cause",
        "only a request that was tried waits for a later time",
        "SELECT 'request ' || id FROM requests"
        " WHERE state = 'pending' AND (due_at_ms < 0 OR (due_at_ms > 0 AND attempts = 0))",
    ),
    Invariant(
        "cancelling_was_in_flight",
        "only a request in flight, or one that was answered, is still to be cancelled",
        "SELECT 'request ' || id FROM requests"
        " WHERE cancelling = 1 AND state NOT IN ('leased', 'succeeded')",
    ),
    Invariant(
        "one_stands",
        "of a word and the name of a prompt one request stands",
        "SELECT 'word ' || word_id || ' prompt ' || name FROM requests"
        " JOIN prompts ON prompts.id = prompt_id WHERE superseded = 0 AND name IN"
        " (SELECT name FROM prompts WHERE version > 1) GROUP BY name, word_id HAVING count(*) > 1",
    ),
    Invariant(
        "off_the_list_is_not_asked",
        "what is superseded or removed is not asked any more",
        "SELECT 'request ' || id FROM requests WHERE (superseded = 1 OR removed_at_ms NOT NULL)"
        " AND (state = 'pending' OR state = 'leased' AND cancelling = 0)",
    ),
    Invariant(
        "superseded_by_another",
        "where a request is superseded another one stands in its place",
        "SELECT 'request ' || old.id FROM requests AS old INDEXED BY requests_superseded"
        " JOIN prompts AS own ON own.id = old.prompt_id WHERE old.superseded = 1 AND NOT EXISTS"
        " (SELECT 1 FROM requests AS new INDEXED BY requests_of_word WHERE new.superseded = 0"
        " AND new.word_id = old.word_id AND new.prompt_id IN"
        " (SELECT id FROM prompts WHERE name = own.name))",
    ),
    Invariant(
        "replaces_an_answer",
        "what a request replaces is an answer about its word, and it has a place in the list",
        "SELECT 'request ' || new.id FROM requests AS new"
        " LEFT JOIN requests AS old ON old.id = new.replaces"
        " LEFT JOIN responses ON request_id = old.id WHERE new.replaces NOT NULL"
        " AND (request_id IS NULL OR old.word_id <> new.word_id OR new.place IS NULL)",
    ),
    Invariant(
        "asked_by_the_current",
        "only the current version of a prompt has something left to ask",
        "SELECT 'prompt ' || id FROM prompts JOIN tallies ON prompt_id = id"
        " WHERE current = 0 AND pending > 0",
    ),
    Invariant(
        "revisions_without_gaps",
        "what a word was is kept, revision by revision, and an attempt knows one of them",
        "SELECT 'word ' || words.id FROM words LEFT JOIN (SELECT word_id, count(*) AS n,"
        " max(number) AS last FROM revisions GROUP BY 1) ON word_id = words.id"
        " WHERE revision <> coalesce(n, 0) + 1 OR revision <> coalesce(last, 0) + 1 UNION ALL"
        " SELECT 'request ' || request_id FROM attempts JOIN requests ON requests.id = request_id"
        " JOIN words ON words.id = word_id"
        " WHERE attempts.revision NOT NULL AND attempts.revision NOT BETWEEN 1 AND words.revision",
    ),
    Invariant(
        "changed_was_asked",
        "only an answer, or a call, is of an older revision of its word",
        "SELECT 'request ' || requests.id FROM requests JOIN words ON words.id = word_id"
        " LEFT JOIN attempts ON request_id = requests.id AND number = requests.attempts"
        " WHERE changed = 1 AND coalesce(attempts.revision, 1) >= words.revision",
    ),
    Invariant(
        "words_can_be_read",
        "the fields of a word are a JSON object",
        "SELECT 'word ' || id FROM words"
        " WHERE CASE WHEN json_valid(fields) THEN json_type(fields) ELSE fields END <> 'object'",
    ),
)

_ATTEMPTS = (
    Invariant(
        "one_open",
        "a request has at most one open attempt",
        "SELECT 'request ' || request_id FROM attempts WHERE finished_at_ms IS NULL"
        " GROUP BY request_id HAVING count(*) > 1",
    ),
    Invariant(
        "one_success",
        "a request has at most one attempt that succeeded",
        "SELECT 'request ' || request_id FROM attempts WHERE outcome = 'succeeded'"
        " GROUP BY request_id HAVING count(*) > 1",
    ),
    Invariant(
        "success_has_response",
        "an attempt that succeeded has brought the response",
        "SELECT 'request ' || attempts.request_id FROM attempts"
        " LEFT JOIN responses ON responses.request_id = attempts.request_id"
        " WHERE outcome = 'succeeded' AND responses.number IS NOT attempts.number",
    ),
    Invariant(
        "response_has_attempt",
        "a response was brought by an attempt that succeeded, the last of its request",
        "SELECT 'request ' || responses.request_id FROM responses"
        " LEFT JOIN attempts ON attempts.request_id = responses.request_id"
        " AND attempts.number = responses.number"
        " LEFT JOIN requests ON requests.id = responses.request_id"
        " WHERE outcome IS NOT 'succeeded' OR requests.attempts IS NOT responses.number",
    ),
    Invariant(
        "response_has_text",
        "a response is not empty",
        "SELECT 'request ' || request_id FROM responses WHERE text = ''",
    ),
    Invariant(
        "mark_has_answer",
        "a mark belongs to an answer",
        "SELECT 'mark ' || reviews.id FROM reviews LEFT JOIN responses USING (request_id)"
        " WHERE number IS NULL",
    ),
    Invariant(
        "draft_has_attempt",
        "a draft was brought by an attempt that has ended and did not succeed",
        "SELECT 'request ' || drafts.request_id FROM drafts"
        " LEFT JOIN attempts ON attempts.request_id = drafts.request_id"
        " AND attempts.number = drafts.number WHERE outcome IS NULL OR outcome = 'succeeded'",
    ),
    Invariant(
        "ends_after_start",
        "an attempt that has ended has an outcome, and did not end before it began",
        "SELECT 'request ' || request_id || ' attempt ' || number FROM attempts"
        " WHERE (finished_at_ms IS NULL) <> (outcome IS NULL) OR finished_at_ms < started_at_ms",
    ),
    Invariant(
        "open_has_run",
        "an open attempt belongs to a run that has not ended",
        "SELECT 'request ' || request_id || ' attempt ' || number FROM attempts"
        " JOIN runs ON runs.id = run_id WHERE finished_at_ms IS NULL AND ended_at_ms IS NOT NULL",
    ),
    Invariant(
        "within_its_run",
        "an attempt began while its run lasted",
        "SELECT 'request ' || request_id || ' attempt ' || number FROM attempts"
        " JOIN runs ON runs.id = run_id WHERE attempts.started_at_ms < runs.started_at_ms"
        " OR attempts.started_at_ms > runs.ended_at_ms",
    ),
    Invariant(
        "runs_end_after_start",
        "a run that has ended says why, and no run ends or shows life before it began",
        "SELECT 'run ' || id FROM runs WHERE ended_at_ms < started_at_ms"
        " OR heartbeat_at_ms < started_at_ms OR (ended_at_ms IS NULL) <> (reason IS NULL)",
    ),
)

_PROMPTS = (
    Invariant(
        "one_current",
        "the versions of a prompt are numbered 1 to n, and one of them is the current one",
        "SELECT 'prompt ' || name FROM prompts GROUP BY name"
        " HAVING sum(current) <> 1 OR max(version) <> count(*)",
    ),
    Invariant(
        "params_can_be_read",
        "the parameters of a prompt are a JSON object",
        "SELECT 'prompt ' || id FROM prompts"
        " WHERE CASE WHEN json_valid(params) THEN json_type(params) END IS NOT 'object'",
    ),
    Invariant(
        "tallies_agree",
        "the counts of a prompt agree with its requests",
        "SELECT 'prompt ' || prompts.id FROM prompts"
        f" LEFT JOIN tallies ON tallies.prompt_id = prompts.id LEFT JOIN ({COUNTS}) AS counted"
        " ON counted.prompt_id = prompts.id"
        " WHERE pending IS NOT coalesce(p, 0) OR leased IS NOT coalesce(l, 0)"
        " OR succeeded IS NOT coalesce(s, 0) OR failed IS NOT coalesce(f, 0)"
        " OR cancelled IS NOT coalesce(c, 0) OR removed IS NOT coalesce(r, 0)",
    ),
    Invariant(
        "views_are_there",
        "a view of a prompt's answers on record is there, and so is its prompt",
        "SELECT 'view ' || prompt_views.name FROM prompt_views"
        " LEFT JOIN sqlite_schema AS made ON made.name = prompt_views.name AND type = 'view'"
        " WHERE type IS NULL OR prompt NOT IN (SELECT name FROM prompts)",
    ),
)

INVARIANTS = _REQUESTS + _ATTEMPTS + LIMITS + _PROMPTS
