"""What the ledger is to do with states and outcomes, written out once more.

Rule: nothing here comes from the product, so that a wrong table there is not the measure of itself.
"""

MAY_FOLLOW = {
    "pending": {"leased", "cancelled"},
    "leased": {"pending", "succeeded", "failed", "cancelled"},
    "succeeded": set(),
    "failed": {"pending"},
    "cancelled": {"pending"},
}
"""The states that a request may go to, by the one it is in."""

OUTCOMES = {
    "succeeded",
    "transient",
    "throttled",
    "unavailable",
    "rejected",
    "blocked",
    "denied",
    "refused",
    "no_money",
    "no_answer",
    "interrupted",
    "abandoned",
}
COUNTS_AS_FAILURE = {"transient", "abandoned"}
"""What a request pays for with its own budget of failures."""
FINAL = {"rejected", "blocked", "refused"}
"""What the same request would only meet again."""
CLOSES_GATE = {"throttled", "unavailable"}
"""What holds for all requests under the same limit."""
OPENS_GATE = {"succeeded", "transient", "rejected", "blocked", "refused", "no_answer"}
"""What shows that a server is there and lets calls in."""
