"""`crawler run -n`: what a run would send, use and cost, before anything is paid.

Rule: read from the rows alone; nothing is written, and nobody is asked. What is not known is not
guessed: it says so.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from crawler.cli.terminal import print_told, printable, printable_lines, span
from crawler.errors import count_of
from crawler.ledger.estimate import Waiting, usually, waiting
from crawler.ledger.intake import Prompt, prompt_by_id
from crawler.ledger.limits import Limit, limits
from crawler.ledger.runs import Selection
from crawler.ledger.tokens import usual
from crawler.ledger.work import work
from crawler.policy import Policy
from crawler.quota.concurrency import at_once
from crawler.template import MissingField, Rendered, Template

MINUTE_MS = 60_000
Price = tuple[float, float]
"""Of a million tokens, in and out."""


class _Use(NamedTuple):
    """What the calls of a prompt would use."""

    tokens_in: int
    tokens_out: int | None
    """None: it has not been answered yet."""
    lasts_ms: float | None


def preview(
    conn: sqlite3.Connection, selection: Selection, price: Price | None, max_calls: int | None
) -> None:
    """Tell what a run would ask, prompt by prompt: the first question whole, and the sums."""
    known = limits(conn, Policy().guard_ms)
    asked = [one for one in work(conn, selection) if one.unfinished > one.leased]
    for one in asked:
        prompt = prompt_by_id(conn, one.prompt_id)
        words = waiting(conn, one.prompt_id, selection)
        if not words:
            continue
        questions = [_rendered(prompt, word) for word in words]
        lacking = [q for q in zip(words, questions, strict=True) if isinstance(q[1], MissingField)]
        first = next((one for one in questions if isinstance(one, Rendered)), None)
        if lacking:
            _tell_unsendable(lacking)
        if first is None:
            continue
        calls = one.unfinished - one.leased - len(lacking)
        calls = min(calls, max_calls or calls)
        _tell_question(prompt, first)
        _tell_sums(prompt, calls, _use(conn, prompt, words, calls, known[one.limit_id]), price)
    print_told("nothing was sent" if asked else "no word waits: nothing would be sent")


def _use(
    conn: sqlite3.Connection,
    prompt: Prompt,
    words: Sequence[Waiting],
    calls: int,
    limit: Limit,
) -> _Use:
    """Return what so many calls would use, as far as the last answers show it."""
    tokens_in, tokens_out, mean_ms = usually(conn, prompt.id, limit.id)
    if tokens_in is None:
        each = usual(conn, prompt.id)
        sizes = [each.tokens_in(word.text, json.dumps(dict(word.fields))) for word in words]
        tokens_in = sum(sizes) / len(sizes)
    out = None if tokens_out is None else round(calls * tokens_out)
    return _Use(round(calls * tokens_in), out, _lasts_ms(calls, mean_ms, limit))


def _lasts_ms(calls: int, mean_ms: float | None, limit: Limit) -> float | None:
    """Return how long so many calls take: by the minute's quota, and by how many are in flight."""
    per_minute = limit.quota.per_minute
    by_quota = None if per_minute is None else calls / per_minute * MINUTE_MS
    by_width = None if mean_ms is None else calls * mean_ms / at_once(limit.state, limit.quota)
    found = [one for one in (by_quota, by_width) if one is not None]
    return max(found, default=None)


def _tell_question(prompt: Prompt, rendered: Rendered) -> None:
    """Tell the first question as it would be sent, with all that goes with it."""
    print_told(f"to {printable(prompt.model)} ({prompt.provider}), the first question:")
    _tell_block(rendered.prompt)
    if rendered.prefill:
        print_told("  the answer begins:")
        _tell_block(rendered.prefill)
    if prompt.params:
        told = ", ".join(f"{name}={_as_typed(value)}" for name, value in prompt.params.items())
        print_told(f"  parameters: {printable(told)}")


def _rendered(prompt: Prompt, word: Waiting) -> Rendered | MissingField:
    """Return the question about a word, or what the word lacks for one."""
    try:
        return Template(prompt.template).render(word.text, word.fields)
    except MissingField as missing:
        return missing


def _tell_unsendable(lacking: Sequence[tuple[Waiting, Rendered | MissingField]]) -> None:
    word, missing = lacking[0]
    more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    name = printable(missing)
    print_told(f"not sent: {printable(word.text)} has no {name}; it would fail{more}")


def _tell_block(text: str) -> None:
    for line in printable_lines(text).splitlines():
        print_told(f"  | {line}")


def _tell_sums(prompt: Prompt, calls: int, use: _Use, price: Price | None) -> None:
    out = "" if use.tokens_out is None else f", {use.tokens_out:,} out"
    parts = [f"about {use.tokens_in:,} tokens in{out}"]
    if use.tokens_out is None:
        parts.append("more is known after some answers: crawler run --first 20")
    elif price is not None:
        cost = (use.tokens_in * price[0] + use.tokens_out * price[1]) / 10**6
        parts.append(f"about {cost:.2f} at {price[0]:g}/{price[1]:g} a million")
    if use.lasts_ms is not None:
        parts.append(f"about {span(max(use.lasts_ms, 1_000))}")
    called = f"{printable(prompt.name)} version {prompt.version}"
    print_told(f"{called}: {count_of(calls, 'call')}; {'; '.join(parts)}")


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
