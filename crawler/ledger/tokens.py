"""Tokens and money: what a call will probably use, what it may use at the most, what it did use.

Rule: a call reserves an estimate when it starts. When it ends, the limit is charged the difference
to what it did use, so that no estimate is wrong for longer than its call lasts.
"""

import sqlite3
from typing import NamedTuple

from crawler.ledger.budget import Allowance
from crawler.quota.state import Quota

WEIGHT = 0.05
"""Of one answer in the mean of all; the first ones weigh more."""
MOST_OUT = "max_output_tokens"
MOST_TOKENS, MOST_PER_CHAR = 1_000_000, 1.0
"""Whatever a server says, no more is believed."""


class Usual(NamedTuple):
    """What is known of the calls of a prompt."""

    chars: int
    """Of its template."""
    bytes: int
    """Of its template and parameters."""
    tokens_per_char: float
    tokens_out_mean: float
    names: int
    """How often the template may put in a word or a field, at the most."""
    most_out: int | None
    """The most tokens that an answer may have, where the prompt says so."""

    def estimate(self, word: str, fields: str | None) -> int:
        """Return the tokens that a call about a word will probably use, its answer's included."""
        out = min(self.tokens_out_mean, self.most_out or self.tokens_out_mean)
        return max(1, round(self.tokens_in(word, fields) + out))

    def tokens_in(self, word: str, fields: str | None) -> float:
        """Return the tokens that the question will probably use by itself."""
        return (self.chars + len(word) + len(fields or "")) * self.tokens_per_char

    def most(self, word: str, fields: str | None) -> tuple[int, int]:
        """Return the tokens that a call about a word can use, in and out.

        No token is shorter than a byte. Where the prompt sets no most, four times the mean.
        """
        tokens_in = self.bytes + self.names * len((word + (fields or "")).encode())
        return tokens_in, self.most_out or round(4 * self.tokens_out_mean)

    def price(
        self, word: str, fields: str | None, quota: Quota, allowance: Allowance
    ) -> tuple[int | None, float]:
        """Return the tokens that a call will probably use, and the most that it may cost.

        None where the limit counts no tokens, 0 where the run has no budget. Raises ValueError for
        a question that no minute has tokens for.
        """
        cost = 0.0 if allowance.budget is None else allowance.cost(*self.most(word, fields))
        most = quota.tokens_per_minute
        if most is None:
            return None, cost
        tokens = self.tokens_in(word, fields)
        if tokens > most:
            raise ValueError(
                f"it needs some {tokens:.0f} tokens, and the limit allows {most} a minute"
            )
        # An answer may be larger than a minute: its call starts alone, and is charged in full.
        return self.estimate(word, fields), cost


def usual(conn: sqlite3.Connection, prompt_id: int) -> Usual:
    """Return what is known of the calls of a prompt."""
    row = conn.execute(
        "SELECT length(template), length(CAST(template || params AS BLOB)), tokens_per_char,"
        " tokens_out_mean, max(1, length(template) - length(replace(template, '{', ''))),"
        f" CASE json_type(params, '$.{MOST_OUT}') WHEN 'integer'"
        f" THEN max(1, json_extract(params, '$.{MOST_OUT}')) END"
        " FROM prompts JOIN tallies ON prompt_id = id WHERE id = ?",
        (prompt_id,),
    ).fetchone()
    return Usual._make(row)


def learn_tokens(
    conn: sqlite3.Connection,
    request_id: int,
    tokens_in: int | None,
    tokens_out: int | None,
    reserved: int,
) -> int:
    """Learn from what a call has used; return by how much that is more than was reserved.

    Where it is not known what it used, the estimate stands.
    """
    if tokens_in is None or tokens_out is None:
        return 0
    tokens_in, tokens_out = min(tokens_in, MOST_TOKENS), min(tokens_out, MOST_TOKENS)
    if tokens_in + tokens_out:
        _learn(conn, request_id, tokens_in, tokens_out)
    return tokens_in + tokens_out - reserved


def _learn(conn: sqlite3.Connection, request_id: int, tokens_in: int, tokens_out: int) -> None:
    prompt_id, chars, calls = conn.execute(
        "SELECT prompts.id, length(template) + length(text) + coalesce(length(fields), 0),"
        " succeeded FROM requests JOIN words ON words.id = word_id"
        " JOIN prompts ON prompts.id = requests.prompt_id"
        " JOIN tallies ON tallies.prompt_id = prompts.id WHERE requests.id = ?",
        (request_id,),
    ).fetchone()
    weight = max(WEIGHT, 1 / max(1, calls))
    conn.execute(
        "UPDATE tallies SET tokens_per_char = tokens_per_char + ?1 * (?2 - tokens_per_char),"
        " tokens_out_mean = tokens_out_mean + ?1 * (?3 - tokens_out_mean) WHERE prompt_id = ?4",
        (weight, min(tokens_in / chars, MOST_PER_CHAR), tokens_out, prompt_id),
    )
