"""Cancels a run at its first step, at its second, and so on to its last; then runs it again.

Each time it has to end soon, with nothing in flight, nothing open and no task left, and the second
run has to do the rest without asking again for what was stored. Ends with 1 if any step is broken.
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

from crawler.ledger import intake
from crawler.ledger.limits import put_limit
from crawler.logs import silent
from crawler.policy import Policy
from crawler.protocol import Word
from crawler.run.ending import RunOptions
from crawler.run.session import crawl_store
from crawler.storage.database import writing
from crawler.storage.store import open_store
from tests.simulation import loop as loops
from tests.simulation.bugs import BUGS, FOUND_AS, planted
from tests.simulation.disk import fast_folder
from tests.simulation.loop import Loop
from tests.simulation.machine import Machine, empty_file
from tests.simulation.oracle import Oracle, most_common
from tests.simulation.service import CALM, Service, Weather

SOON_S = 6.0
"""A call that has been given up may take five seconds to end."""
STEPS_A_PROCESS = 20
TROUBLED = Weather(hanging=0, quota=12)


class Sweep(NamedTuple):
    """What is cancelled: how many items, whether calls fail, and whether it is cancelled twice."""

    items: int
    retries: bool
    twice: bool
    bug: str | None


class Told(NamedTuple):
    """What came of a cancellation."""

    step: int
    was_running: bool
    broken: list[str]


class _Run:
    """A file, and a program that is cancelled at one step."""

    def __init__(self, loop: Loop, path: Path, sweep: Sweep) -> None:
        self.loop, self.path = loop, path
        self.machine = Machine(loop)
        self.service = Service(loop, 1, TROUBLED if sweep.retries else CALM._replace(failing=0))
        self.oracle = Oracle(path, self.service)
        self.was_running = False
        self._sweep = sweep

    async def cancelled_at(self, step: int) -> None:
        """Run, be cancelled, and run again."""
        with writing(self.path, self.machine.wall_ms()) as writer:
            writer.run(self._make)
        others = asyncio.all_tasks(self.loop)
        program = self.loop.start("first", self._program())
        for nth in range(2 if self._sweep.twice else 1):
            self.loop.at_step[self.loop.steps + step + 3 * nth] = lambda: self._cancel(program)
        await asyncio.wait([program])
        self.loop.at_step.clear()
        self._look(program, others)
        await self.loop.start("second", self._program())
        self.oracle.look_at_end()

    def _make(self, conn) -> None:
        limit_id = put_limit(conn, "quota", 3)
        spec = intake.PromptSpec("p", "About {word}", "scripted", "m", {})
        prompt, _ = intake.put_prompt(conn, spec, limit_id, self.machine.wall_ms())
        words = [Word(f"word{n}", {}) for n in range(self._sweep.items)]
        intake.add_words(conn, prompt.id, words, self.machine.wall_ms())
        self.service.expect(3, None)

    async def _program(self) -> None:
        async with open_store(self.path) as store:
            given = {("scripted", "m"): self.service}
            await crawl_store(store, Policy(), RunOptions(), silent(), given=given)

    def _cancel(self, program: asyncio.Task) -> None:
        if not program.done():
            self.was_running = True
            self.oracle.stopped.add(1)
            self._cancelled_at_s = self.loop.now_s
            program.cancel()

    def _look(self, program: asyncio.Task, others: set[asyncio.Task]) -> None:
        """Look at what a cancelled run leaves."""
        broken = self.oracle.broken
        if not self.was_running:
            return
        if not program.cancelled() and program.exception() is not None:
            broken.append(f"it raised {program.exception()!r}")
        if self.loop.now_s - self._cancelled_at_s > SOON_S:
            broken.append(f"it took {self.loop.now_s - self._cancelled_at_s:.1f} s to end")
        tasks = asyncio.all_tasks(self.loop) - others
        if tasks:
            broken.append(f"{len(tasks)} tasks are left")
        left = self.machine.open_databases("first"), self.machine.held_locks("first")
        if left != (0, 0):
            broken.append(f"connections and locks are left open: {left}")
        self.oracle.look()
        self.oracle.require_idle()


def cancel_at(step: int, sweep: Sweep) -> Told:
    """Cancel one run at one step."""
    gc.disable()
    folder = Path(tempfile.mkdtemp(dir=fast_folder()))
    (folder / "c.db").write_bytes(empty_file())
    runs: list[_Run] = []
    broken: list[str] = []

    async def main(loop: Loop) -> None:
        runs.append(_Run(loop, folder / "c.db", sweep))
        with runs[0].machine.installed():
            await asyncio.wait_for(runs[0].cancelled_at(step), 3600)

    try:
        with planted(sweep.bug):
            loops.run(main)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        broken.append(f"{type(error).__name__}: {error}")
    (run,) = runs
    run.oracle.close()
    shutil.rmtree(folder)
    return Told(step, run.was_running, [*broken, *run.oracle.broken, *run.service.broken])


def main() -> None:
    """Sweep over all steps."""
    options = _options()
    sweep = Sweep(options.items, options.retries, options.twice, options.bug)
    began_s = time.perf_counter()
    told = (
        [cancel_at(options.step, sweep)]
        if options.step is not None
        else _swept(sweep, count(options.first, options.every), options.jobs)
    )
    failed = [one for one in told if one.broken]
    again = " ".join(sys.argv[1:])
    for one in failed[:10]:
        print(f"cancelled at step {one.step}: {one.broken[0]}")
        print(f"  again: scripts/simulate cancellation {again} --step {one.step}")
    for shape, times in most_common([what for one in failed for what in one.broken])[:10]:
        print(f"{times:6} × {shape}")
    took_s = time.perf_counter() - began_s
    print(f"cancelled at {len(told):,} steps: {len(failed)} broken; {took_s:.0f} s")
    sys.stdout.flush()
    os._exit(bool(failed))


def _swept(sweep: Sweep, steps: Iterator[int], jobs: int) -> list[Told]:
    """Cancel at one of the steps after another, until the run is over before it."""
    told: list[Told] = []
    empty_file()
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        while True:
            some = [(step, sweep) for step in islice(steps, STEPS_A_PROCESS * jobs)]
            told += pool.starmap(cancel_at, some, STEPS_A_PROCESS)
            found = sweep.bug is not None and any(
                FOUND_AS[sweep.bug] in what for one in told for what in one.broken
            )
            if found or not told[-1].was_running:
                return [one for one in told if one.was_running]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate cancellation", description=__doc__)
    parser.add_argument("--items", type=int, default=6, help="words in the list  [6]")
    parser.add_argument("--retries", action="store_true", help="calls fail and are refused, too")
    parser.add_argument("--twice", action="store_true", help="cancel again three steps later")
    parser.add_argument("--step", type=int, help="only this one")
    parser.add_argument("--every", type=int, default=1, help="each n-th step alone  [1]")
    parser.add_argument("--first", type=int, default=1, help="the first of them  [1]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes  [all cores]")
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this mistake in the program")
    return parser.parse_args()


if __name__ == "__main__":
    main()
