"""`crawler run`: the crawl itself.

Rule: what the options say is written to the database first, so that the run reads it there like
everybody else.
"""

import importlib
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import click

from crawler.cli.options import (
    MOST,
    Budget,
    Duration,
    Price,
    WordsOrFiles,
    changed_database_option,
    endpoint_option,
)
from crawler.cli.preview import preview
from crawler.cli.retarget import (
    Changed,
    changes,
    chosen_prompts,
    put_change,
    report_changed,
    require_reachable,
)
from crawler.cli.selecting import Typed, answer_options, selected, typed
from crawler.cli.status import died_alone
from crawler.cli.terminal import tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit
from crawler.ledger import control
from crawler.ledger.budget import ANYTHING, Allowance
from crawler.ledger.clocks import file_ms
from crawler.ledger.intake import Prompt
from crawler.ledger.runs import Selection, live_runs
from crawler.policy import Policy
from crawler.states import RequestState
from crawler.storage.database import reading, require_database, writing
from crawler.storage.files import is_alone

MOST_SELECTED = 10_000
"""Words that a run of some words may ask: each of its turns looks at all of them."""


@click.command(
    cls=WordsOrFiles,
    epilog="""\b
Examples:
  crawler run
  crawler run --concurrency 10 --per-minute 60
  crawler run --provider openai --model gpt-4o-mini --limit 20
  crawler run -n                                say what it would send, use and cost
  crawler run --first 20                        try it on some words
  crawler run --watch                           stay, and wait for more words""",
)
@click.argument("words", nargs=-1, metavar="[WORD|@FILE|-]...")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what it would send, use and cost.")
@answer_options
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST),
    help="Calls in flight at once; the limit is set to it.",
)
@click.option(
    "--per-minute",
    type=click.IntRange(1, MOST),
    help="Calls that may start in any 60 s; likewise.",
)
@click.option("--provider", help="Ask this provider instead: a new version of the prompts.")
@click.option("--model", help="Likewise this model. What wrote the list of words stays as it is.")
@click.option("--prompt", "name", help="Only this prompt.")
@click.option("--watch", is_flag=True, help="Stay when all is done, and wait for more words.")
@click.option("--deadline", type=Duration(), help="Start no call after this time: 90s, 10m, 2h.")
@click.option("--limit", "max_calls", type=click.IntRange(1, MOST), help="Start this many calls.")
@click.option(
    "--budget",
    type=Budget(),
    metavar="N|SUM",
    help="Spend at the most this many tokens, as 200000; or, with --price, money, as 2.50.",
)
@click.option(
    "--price",
    type=Price(),
    metavar="IN/OUT",
    help="What a million tokens cost, of prompts and of answers: 0.30/2.50.",
)
@click.option("--timeout", type=Duration(), help="Of one call.  [default: 2m]")
@click.option("--max-failures", type=click.IntRange(1, MOST), help="Of one word.  [default: 20]")
@endpoint_option
@changed_database_option
def run(
    db: Path,
    words: Sequence[str],
    concurrency: int | None,
    per_minute: int | None,
    provider: str | None,
    model: str | None,
    name: str | None,
    deadline: int | None,
    max_calls: int | None,
    budget: float | None,
    price: tuple[float, float] | None,
    timeout: int | None,
    max_failures: int | None,
    *,
    dry_run: bool,
    watch: bool,
    **said: Any,
) -> int:
    """Ask about every word that waits; with words or --first 20 only about those of them.

    What --concurrency and --per-minute say is kept in the file, and is so for the next run, too.

    Ctrl-C stops politely: nothing more is started, and what is in flight is waited for. A second
    one stops at once; what was in flight is asked again by the next run.
    """
    asked = typed(words, (name,) if name else (), **said)
    policy = _policy(timeout, max_failures)
    allowance = ANYTHING if dry_run else _allowance(budget, price)
    require_database(db)  # a run has something to do only where words have been added
    if dry_run:
        _preview(db, name, asked, price, max_calls, is_other=bool(provider or model))
        return Exit.DONE
    alone = is_alone(db)
    with writing(db, wall_ms()) as writer:  # also of an older version: now it is read
        planned = writer.run(changes, name, provider, model)
        unended = writer.run(live_runs) if alone else []
    for line in died_alone(db, unended):
        tell(line)
    require_reachable(planned)
    with writing(db, wall_ms()) as writer:
        done, selection = writer.run(_apply, name, provider, model, concurrency, per_minute, asked)
    report_changed(done)
    # From here on it is a running crawl; what only that needs is imported now.
    _import_structlog()
    from crawler.cli.crawl import crawl  # noqa: PLC0415
    from crawler.run.ending import RunOptions  # noqa: PLC0415

    options = RunOptions(
        watch=watch,
        deadline_ms=deadline,
        max_calls=max_calls,
        budget=allowance,
        selection=selection,
    )
    return crawl(db, policy, options)


def _import_structlog() -> None:
    """Import structlog without rich, which it wants for tracebacks that no command shows: 60 ms."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = cast("ModuleType", None)  # as Python has it for what is not to be found
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


def _preview(
    db: Path,
    name: str | None,
    asked: Typed,
    price: tuple[float, float] | None,
    max_calls: int | None,
    *,
    is_other: bool,
) -> None:
    """Say what the same command would do, and change nothing."""
    if is_other:
        raise click.UsageError(
            "-n shows what is on record: crawler prompt edit NAME --provider P --model M, then -n"
        )
    with reading(db) as conn:
        preview(conn, _selection(conn, name, asked), price, max_calls)


def _selection(conn: sqlite3.Connection, name: str | None, asked: Typed) -> Selection:
    """Return what a run is to ask: of the words that are meant those that wait."""
    if asked.is_empty:
        return Selection(prompt=name)
    if asked.selectors.words is not None:
        selected(conn, asked)
    waiting = asked.selectors._replace(states=asked.selectors.states or (RequestState.PENDING,))
    ids = [
        request.id
        for prompt, requests in selected(conn, asked._replace(selectors=waiting), must_hit=False)
        if prompt.provider != "function"
        for request in requests
    ]
    if len(ids) > MOST_SELECTED:
        raise CrawlerError(
            f"{len(ids)} words are selected, and a run of some words asks {MOST_SELECTED} at most",
            "each of them is looked for at each step",
            f"crawler run --first {MOST_SELECTED}, or crawler run for all that wait",
            Exit.USAGE,
        )
    if not ids:
        tell("none of these words waits: crawler retry lets words wait again")
    return Selection(request_ids=tuple(ids))


def _allowance(budget: float | None, price: tuple[float, float] | None) -> Allowance:
    """Return what a run may spend."""
    if price is not None and budget is None:
        raise click.UsageError("--price says what tokens cost; --budget says how much to spend")
    if budget is None:
        return ANYTHING
    if price is None:
        if budget != int(budget):
            raise click.UsageError("a budget without --price is a number of tokens")
        return ANYTHING._replace(budget=budget)
    price_in, price_out = (of_a_million / 10**6 for of_a_million in price)
    return ANYTHING._replace(budget=budget, price_in=price_in, price_out=price_out)


def _policy(timeout_ms: int | None, max_failures: int | None) -> Policy:
    default = Policy()
    if timeout_ms == 0:
        raise click.UsageError("--timeout 0s leaves no time for an answer: write 30s, or more")
    call_timeout_ms = timeout_ms or default.call_timeout_ms
    return Policy(
        max_failures=max_failures or default.max_failures,
        call_timeout_ms=call_timeout_ms,
        lost_after_ms=max(default.lost_after_ms, 2 * call_timeout_ms),
    )


def _apply(
    conn: sqlite3.Connection,
    name: str | None,
    provider: str | None,
    model: str | None,
    concurrency: int | None,
    per_minute: int | None,
    asked: Typed,
) -> tuple[list[Changed], Selection]:
    """Write to the database what the options say, all of it or nothing.

    Returns the prompts that have changed, and what is to be asked.
    """
    done = [put_change(conn, change) for change in changes(conn, name, provider, model)]
    selection = _selection(conn, name, asked)
    others = provider or model
    chosen = [changed.new for changed in done] if others else chosen_prompts(conn, name)
    _set_limit(conn, chosen, concurrency, per_minute)
    return done, selection


def _set_limit(
    conn: sqlite3.Connection,
    chosen: list[Prompt],
    concurrency: int | None,
    per_minute: int | None,
) -> None:
    names = sorted({prompt.limit for prompt in chosen})
    if not names or (concurrency is None and per_minute is None):
        return
    provider = chosen[0].provider
    of_provider = all(name == provider or name.startswith(f"{provider}/") for name in names)
    if len(names) > 1 and not of_provider:
        raise CrawlerError(
            "it is not clear which limit is meant",
            f"the prompts share {len(names)} of them: {', '.join(names)}",
            "crawler limit NAME --per-minute N --concurrency N, or crawler run --prompt NAME …",
            Exit.USAGE,
        )
    for limit in names:  # those of one provider's models
        if concurrency is not None:
            control.set_concurrency(conn, limit, concurrency)
        if per_minute is not None:
            control.set_per_minute(conn, limit, per_minute, file_ms(conn))
    if len(names) > 1:
        set_to = {"per_minute": per_minute, "concurrency": concurrency}
        _tell_set(names, {what: value for what, value in set_to.items() if value is not None})


def _tell_set(names: list[str], settings: Mapping[str, int]) -> None:
    """Tell which limits were set; beside the display, or as a line of the log."""
    if sys.stderr.isatty():
        said = ", ".join(f"{value} {what}" for what, value in settings.items())
        tell(f"{said} for each of {len(names)} limits: {', '.join(names)}")
    else:
        from crawler.logs import json_lines  # noqa: PLC0415 - what only a crawl needs

        json_lines().info("limits_set", limits=names, **settings)
