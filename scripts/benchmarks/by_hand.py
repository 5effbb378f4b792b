"""The ledger's own functions on a plain sqlite3 connection: no event loop, no thread, one caller.

The benchmarks use it as the yardstick and to fill files. By itself it answers every pending request
of a file, in large transactions and by way of all triggers:

    python scripts/benchmarks/by_hand.py crawl.db [--outcome transient]

Its clock begins two days ago, so that nothing it has done counts as of the last minute. With the
outcome `transient` every request is left waiting for a time that is ten years away.
"""

import argparse
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crawler.clock import wall_ms
from crawler.ledger import control
from crawler.ledger.budget import Allowance
from crawler.ledger.finish import end_run
from crawler.ledger.limits import limits
from crawler.ledger.runs import Scope, start_run
from crawler.ledger.turn import Turn, turn
from crawler.policy import Policy
from crawler.protocol import Finish, Lease
from crawler.states import Outcome
from crawler.storage.database import SCHEDULER_CHECKPOINT_PAGES, configure, prepare_file, transact
from crawler.storage.locks import WriteLock

FILLER = " ".join(["as", "many", "words", "as", "answers", "have"] * 17)[:480]
FILL_BATCH = 10_000
TWO_DAYS_MS = 172_800_000
TEN_YEARS_MS = 315_360_000_000


class Hand:
    """An open file and a run in it."""

    def __init__(self, conn: sqlite3.Connection, lock: WriteLock, clock: Callable[[], int]) -> None:
        self.conn = conn
        self._lock = lock
        self._clock = clock
        run_id = self.run(start_run, 0, "by hand", "0", clock())
        self._scope = Scope(run_id=run_id, policy=Policy(), clock=clock, draw=random.randint)

    def run(self, transaction: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        """Run a function of the ledger as one transaction."""
        return transact(self.conn, self._lock, transaction, *args, **facts)

    def turn(self, finished: Sequence[Finish], budget: int) -> Turn:
        """Record what has finished and lease as many as the budget allows."""
        return self.run(turn, self._scope, finished, Allowance(budget))

    def forgive(self) -> None:
        """Forget that the server was out of order."""
        self.run(control.end_outage, self._clock())

    def answers(self, leases: Sequence[Lease], filler: str = FILLER) -> list[Finish]:
        """Return the success of every lease."""
        now_ms = self._clock()
        return [
            Finish(
                lease.request_id,
                lease.number,
                now_ms,
                Outcome.SUCCEEDED,
                text=f"{lease.word.capitalize()}: {filler}.",
                tokens_in=1,
                tokens_out=101,
            )
            for lease in leases
        ]

    def failures(self, leases: Sequence[Lease]) -> list[Finish]:
        """Return for every lease a failure that has to wait for ten years."""
        now_ms = self._clock()
        return [
            Finish(
                lease.request_id,
                lease.number,
                now_ms,
                Outcome.TRANSIENT,
                reason="HTTP 503: busy",
                status_code=503,
                retry_after_ms=TEN_YEARS_MS,
            )
            for lease in leases
        ]

    def checkpoint(self) -> None:
        """Write everything back from the write-ahead log."""
        with self._lock.held():
            self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def end(self) -> None:
        """End the run."""
        self.run(end_run, self._scope, self._scope.run_id, Outcome.INTERRUPTED, "finished")


@contextmanager
def opened(path: Path, clock: Callable[[], int] | None = None) -> Iterator[Hand]:
    """Open a file with the settings that a scheduler gives it."""
    clock = clock or wall_ms
    prepare_file(path)
    lock = WriteLock(path)
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        configure(conn, lock, SCHEDULER_CHECKPOINT_PAGES, clock())
        hand = Hand(conn, lock, clock)
        yield hand
        hand.end()
    finally:
        conn.close()
        lock.close()


def fill(path: Path, outcome: str) -> int:
    """Bring every pending request of a file to an end, or into waiting; return how many."""
    clock = wall_ms
    done = 0
    with opened(path, lambda: clock() - TWO_DAYS_MS) as hand:
        before = limits(hand.conn, 0).values()
        for limit in before:
            hand.run(control.set_concurrency, limit.name, 2 * FILL_BATCH)
            hand.run(control.set_adaptive, limit.name, clock(), adaptive=False)
        ends = hand.answers if outcome == "succeeded" else hand.failures
        finished: list[Finish] = []
        while True:
            hand.turn(finished, 0)
            hand.forgive()
            leases = hand.turn([], FILL_BATCH).leases
            if not leases:
                break
            finished = ends(leases)
            done += len(leases)
        for limit in before:
            hand.run(control.set_concurrency, limit.name, limit.quota.concurrency)
            hand.run(control.set_adaptive, limit.name, clock(), adaptive=True)
    return done


def main(argv: list[str] | None = None) -> None:
    """Fill a file."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("database", type=Path)
    options.add_argument("--outcome", choices=("succeeded", "transient"), default="succeeded")
    args = options.parse_args(argv)
    started = time.perf_counter()
    done = fill(args.database, args.outcome)
    print(f"{done} requests {args.outcome} in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
