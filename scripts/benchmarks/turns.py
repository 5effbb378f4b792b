"""Measures the crawl itself: the scripted provider answers at once, so all the time is our own.

    scripts/bench turns [--words 50000] [--rounds 3] [--dir FOLDER]

In turn, on fresh files of the same settings (synchronous=FULL):

    crawl          crawl_store over open_store: scheduler, executor, event loop, ledger thread
    plain sqlite3  the same function `turn` called in a loop on a plain connection: each
                   transaction records --batch answers of the same text and leases --batch more

and gives requests a second of wall time, CPU time a request of the whole process, and the ratios
crawl : plain sqlite3, round by round and as medians. Of the crawl it also says how much of the CPU
time was spent inside transactions (thread time around `transact`) and how much in all the rest.
"""

import argparse
import asyncio
import gc
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import by_hand
import harness

from crawler.ledger.intake import PromptSpec, add_words, put_prompt
from crawler.ledger.limits import put_limit
from crawler.logs import json_lines
from crawler.policy import Policy
from crawler.protocol import Call, Word
from crawler.providers import scripted
from crawler.run.ending import RunOptions
from crawler.run.session import crawl_store
from crawler.storage import store

ANSWER_WORDS = 100
CONCURRENCY = 200


class Cost(NamedTuple):
    """What one side has taken for one request."""

    wall_us: float
    cpu_us: float
    in_transactions_us: float
    a_transaction: float
    """Requests."""


class Meter:
    """Adds up the CPU time that a thread spends in transactions."""

    def __init__(self) -> None:
        self.cpu_ns = 0
        self.transactions = 0

    @contextmanager
    def on(self, module: Any) -> Iterator[None]:
        """Measure every call of a module's `transact`."""
        transact = module.transact

        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return transact(*args, **kwargs)
            finally:
                self.cpu_ns += time.thread_time_ns() - began
                self.transactions += 1

        with mock.patch.object(module, "transact", measured):
            yield


class Clocks:
    """Wall time and CPU time of the process, from here on."""

    def __init__(self) -> None:
        gc.collect()
        self._wall_ns, self._cpu_ns = time.perf_counter_ns(), time.process_time_ns()

    def cost(self, words: int, meter: Meter) -> Cost:
        """Return the cost of a request until now."""
        wall_ns = time.perf_counter_ns() - self._wall_ns
        cpu_ns = time.process_time_ns() - self._cpu_ns
        each = words * 1000
        return Cost(wall_ns / each, cpu_ns / each, meter.cpu_ns / each, words / meter.transactions)


def put(conn: sqlite3.Connection, words: int, now_ms: int) -> None:
    """Add the words, and the prompt that asks about them."""
    spec = PromptSpec("ask", "{word}", "scripted", "scripted", {"words": ANSWER_WORDS})
    prompt, _ = put_prompt(conn, spec, put_limit(conn, "scripted", CONCURRENCY), now_ms)
    add_words(conn, prompt.id, [Word(harness.word(number), {}) for number in range(words)], now_ms)


async def crawl(path: Path, words: int) -> Cost:
    """Measure a crawl."""
    meter = Meter()
    async with store.open_store(path) as opened:
        await opened.run(put, words, time.time_ns() // 1_000_000)
        with meter.on(store):
            log = json_lines(logging.CRITICAL)  # nothing is that bad: no line is written
            clocks = Clocks()
            ending = await crawl_store(opened, Policy(), RunOptions(), log)
            cost = clocks.cost(words, meter)
    assert ending.reason == "finished"
    return cost


def plain(path: Path, words: int, batch: int, filler: str) -> Cost:
    """Measure the same statements without all that is around them."""
    meter = Meter()
    with by_hand.opened(path) as hand:
        hand.run(put, words, time.time_ns() // 1_000_000)
        with meter.on(by_hand):
            clocks = Clocks()
            done = hand.turn([], batch)
            while done.leases:
                done = hand.turn(hand.answers(done.leases, filler), batch)
            return clocks.cost(words, meter)


def check(path: Path, words: int) -> None:
    """See to it that every word has its answer."""
    conn = sqlite3.connect(path)
    (answers,) = conn.execute("SELECT count(*) FROM responses").fetchone()
    conn.close()
    assert answers == words, f"{answers} answers for {words} words"


def filler() -> str:
    """Return what all scripted answers say, without the word."""
    params = {"words": ANSWER_WORDS}
    call = Call(1, 1, "word", "scripted", "scripted", "word", "", params, 1000)
    answer = asyncio.run(scripted.Script().generate(call))
    return answer.text.removeprefix("Word: ").removesuffix(".")


def in_turn(folder: Path, args: argparse.Namespace) -> Iterator[tuple[Cost, Cost]]:
    """Yield the costs of a crawl and of plain sqlite3, round by round."""
    text = filler()
    for number in range(args.rounds):
        crawled, by_itself = folder / f"crawl-{number}.db", folder / f"plain-{number}.db"
        costs = (
            asyncio.run(crawl(crawled, args.words)),
            plain(by_itself, args.words, args.batch, text),
        )
        for path in (crawled, by_itself):
            check(path, args.words)
            path.unlink()
        yield costs


def show(title: str, costs: list[tuple[Cost, Cost]]) -> None:
    """Print the medians of some rounds, and the median of their ratios."""
    ours, theirs = (
        Cost(*map(median, zip(*side, strict=True))) for side in zip(*costs, strict=True)
    )
    rate = median(other.wall_us / own.wall_us for own, other in costs)
    cpu = median(own.cpu_us / other.cpu_us for own, other in costs)
    inside = ours.in_transactions_us
    print(
        f"{title}: crawl {1e6 / ours.wall_us:,.0f} requests/s, {ours.cpu_us:.1f} us CPU each"
        f" ({inside:.1f} in transactions of {ours.a_transaction:.0f},"
        f" {ours.cpu_us - inside:.1f} the rest)"
    )
    print(
        f"{' ' * len(title)}  plain sqlite3 {1e6 / theirs.wall_us:,.0f} requests/s,"
        f" {theirs.cpu_us:.1f} us CPU each ({theirs.in_transactions_us:.1f} in transactions"
        f" of {theirs.a_transaction:.0f})"
    )
    print(f"{' ' * len(title)}  ratio {rate:.2f} of the rate, {cpu:.2f} of the CPU time")


def main(argv: list[str] | None = None) -> None:
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--words", type=int, default=50_000)
    options.add_argument("--batch", type=int, default=100, help="of plain sqlite3")
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args(argv)
    print(f"{args.words} words, concurrency {CONCURRENCY}, no latency, no limit per minute")
    costs = []
    with harness.workspace(args.dir) as folder:
        for number, pair in enumerate(in_turn(folder, args), 1):
            costs.append(pair)
            show(f"round {number}", [pair])
    show("median ", costs)


if __name__ == "__main__":
    main()
