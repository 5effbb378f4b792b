"""The promises of the file as questions that must have no answer.

Rule: an invariant is a name, a sentence, and SQL that finds what breaks it. Each is one pass over a
table or two, so that a file with millions of rows is checked in seconds. The list begins with what
a schema can't be broken in without damage, and goes on to what only the program keeps.
"""

from typing import NamedTuple


class Invariant(NamedTuple):
    """A promise; ``sql`` selects what breaks it."""

    name: str
    promise: str
    sql: str


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

# The settings of a limit, each with the first start that it is for. What was never set on record
# is what it has always been; where a record does not say from which start, nothing is known.
_SET = (
    "SELECT id, limit_id, CAST(rate AS INTEGER) AS most, started + 1 AS first"
    " FROM limit_changes WHERE what = 'set' AND why GLOB 'per_minute = *' AND started IS NOT NULL"
)
_SETTINGS = (
    f"SELECT limit_id, most, first, lead(first, 1, {2**62}) OVER"
    f" (PARTITION BY limit_id ORDER BY id) AS next FROM ({_SET}) UNION ALL"
    f" SELECT id, per_minute, 0, {2**62} FROM limits WHERE NOT EXISTS (SELECT 1 FROM limit_changes"
    " WHERE limit_id = limits.id AND what = 'set' AND why GLOB 'per_minute = *')"
)

_LIMITS = (
    Invariant(
        "window_is_kept",
        "no more calls start in any 60 s than the limit then in force",
        f"WITH settings AS MATERIALIZED ({_SETTINGS}) SELECT 'limit ' || limit_id || ' start '"
        " || nth FROM (SELECT attempts.limit_id, nth, started_at_ms, lag(started_at_ms, most) OVER"
        " (PARTITION BY attempts.limit_id ORDER BY started_at_ms, nth) AS before_ms"
        " FROM attempts INDEXED BY attempts_started LEFT JOIN settings"
        " ON settings.limit_id = attempts.limit_id AND first <= nth AND nth < next WHERE nth > 0)"
        " WHERE before_ms >= started_at_ms - 60000",
    ),
    Invariant(
        "limit_is_as_set",
        "a limit is what it was last set to",
        "SELECT 'limit ' || limits.id FROM limits JOIN limit_changes ON limit_changes.id ="
        " (SELECT max(id) FROM limit_changes WHERE limit_id = limits.id AND what = 'set'"
        " AND why GLOB 'per_minute = *')"
        " WHERE per_minute IS NOT CAST(limit_changes.rate AS INTEGER)",
    ),
    Invariant(
        "starts_are_counted",
        "each start has a number of its own among those of its limit, which knows the last",
        "SELECT 'limit ' || limit_id || ' start ' || nth FROM attempts WHERE nth > 0"
        " GROUP BY limit_id, nth HAVING count(*) > 1 UNION ALL"
        " SELECT 'limit ' || limits.id FROM limits JOIN (SELECT limit_id, count(*) AS n,"
        " max(nth) AS last FROM attempts WHERE nth >= 0 GROUP BY limit_id) ON limit_id = limits.id"
        " WHERE started < n OR started < last",
    ),
    Invariant(
        "starts_are_in_order",
        "whoever has the higher number did not start earlier",
        "SELECT 'request ' || request_id FROM (SELECT request_id, started_at_ms,"
        " lag(started_at_ms) OVER (PARTITION BY limit_id ORDER BY nth) AS before_ms"
        " FROM attempts WHERE nth > 0) WHERE before_ms > started_at_ms",
    ),
    Invariant(
        "starts_under_its_limit",
        "an attempt counts under the limit of its prompt",
        "SELECT 'request ' || requests.id FROM attempts"
        " JOIN requests ON requests.id = request_id JOIN prompts ON prompts.id = prompt_id"
        " WHERE attempts.limit_id <> prompts.limit_id",
    ),
    Invariant(
        "gate_is_whole",
        "a closed gate has a cause, a reason and a refusal on record, and an open one has none",
        "SELECT 'limit ' || id FROM limits WHERE (gate_cause IS NULL) <> (gate_reason IS NULL)"
        " OR (gate_cause IS NULL) <> (gate_strikes = 0)"
        " OR (gate_cause IS NULL AND gate_opens_at_ms <> 0)",
    ),
    Invariant(
        "pace_is_known",
        "a limit that keeps a pace knows which, and a pause that ends has begun",
        "SELECT 'limit ' || id FROM limits WHERE (tat_us NOT NULL AND rate IS NULL) OR rate <= 0"
        " OR (paused_at_ms IS NULL AND paused_until_ms IS NOT NULL)",
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
        " LEFT JOIN tallies ON tallies.prompt_id = prompts.id LEFT JOIN ("
        " SELECT prompt_id AS id, sum(state = 'pending') AS p, sum(state = 'leased') AS l,"
        " sum(state = 'succeeded') AS s, sum(state = 'failed') AS f, sum(state = 'cancelled') AS c"
        " FROM requests GROUP BY prompt_id) AS counted ON counted.id = prompts.id"
        " WHERE pending IS NOT coalesce(p, 0) OR leased IS NOT coalesce(l, 0)"
        " OR succeeded IS NOT coalesce(s, 0) OR failed IS NOT coalesce(f, 0)"
        " OR cancelled IS NOT coalesce(c, 0)",
    ),
    Invariant(
        "views_are_there",
        "a view of a prompt's answers on record is there, and so is its prompt",
        "SELECT 'view ' || prompt_views.name FROM prompt_views"
        " LEFT JOIN sqlite_schema AS made ON made.name = prompt_views.name AND type = 'view'"
        " WHERE type IS NULL OR prompt NOT IN (SELECT name FROM prompts)",
    ),
)

INVARIANTS = _REQUESTS + _ATTEMPTS + _LIMITS + _PROMPTS
