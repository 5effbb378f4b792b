"""What is promised of limits: windows, settings, gates. See `invariants`, which has the others.

Rule: likewise, an invariant is a name, a sentence, and SQL that finds what breaks it.
"""

from typing import NamedTuple


class Invariant(NamedTuple):
    """A promise; ``sql`` selects what breaks it."""

    name: str
    promise: str
    sql: str


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

LIMITS = (
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
