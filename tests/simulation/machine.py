"""The machine that simulated processes run on: its clocks, and what its kernel does for the dead.

Rule: the clocks run with the loop's time. The wall clock may be set; the time since boot never
jumps, and begins anew when the machine is started again.
"""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import aiosqlite

from crawler import clock
from crawler.run import loop as running
from crawler.run import recovery
from crawler.storage import locks
from crawler.storage.database import writing
from tests.simulation.disk import fast_folder
from tests.simulation.loop import PROCESS, Loop

EPOCH_S = 1_700_000_000
SECOND_NS = 10**9
_version = functools.cache(running.version)


@functools.cache
def empty_file() -> bytes:
    """Return the file that every history begins with: made once, whatever is planted later.

    To be asked for before processes are forked, which then have it already.
    """
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        path = Path(folder) / "c.db"
        with writing(path, EPOCH_S * 1000):
            pass
        return path.read_bytes()


class Machine:
    """What is left of processes is given back here, when they die."""

    def __init__(self, loop: Loop) -> None:
        self.starts = 1
        self._loop = loop
        self._skew_s = 0.0
        self._was_set = self._is_new = False
        self._started_at_s = loop.now_s - 100
        self._databases: dict[str, list[aiosqlite.Connection]] = {}
        self._locks: dict[str, list[Any]] = {}
        loop.on_kill.append(self._release)

    def start_again(self) -> None:
        """Begin another boot; to be called when all processes are dead."""
        self.starts += 1
        self._is_new = True
        self._started_at_s = self._loop.now_s - 10

    def set_clock(self, by_s: float) -> None:
        """Set the wall clock."""
        self._skew_s += by_s
        self._was_set = True

    def is_lost_in_time(self) -> bool:
        """Tell, when the next process starts, whether nothing says how long the machine was off.

        That only its wall clock can tell, and somebody has set it.
        """
        lost = self._is_new and self._was_set
        self._was_set = self._was_set and not self._is_new
        self._is_new = False
        return lost

    def wall_ms(self) -> int:
        """Return what the wall clock says, in ms."""
        return self._wall_ns() // 10**6

    def open_databases(self, process: str) -> int:
        """Return how many connections a process has not closed."""
        return sum(db._connection is not None for db in self._databases.get(process, ()))

    def held_locks(self, process: str) -> int:
        """Return how many files of locks a process has not given back."""
        return sum(lock._fd is not None for lock in self._locks.get(process, ()))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the program run on this machine."""
        time = SimpleNamespace(time_ns=self._wall_ns, clock_gettime_ns=self._since_boot_ns)
        with ExitStack() as patches:
            patches.enter_context(patch.object(clock, "time", time))
            # What is installed is read anew for each run: a twentieth of a simulation's time.
            patches.enter_context(patch.object(running, "version", _version))
            for module in (clock, running, recovery):
                patches.enter_context(patch.object(module, "boot_id", self._boot_id))
            for kind, made in (
                (aiosqlite.Connection, self._databases),
                (locks.WriteLock, self._locks),
                (locks.RunLock, self._locks),
            ):
                patches.enter_context(patch.object(kind, "__init__", _noting(kind, made)))
            yield

    def _wall_ns(self) -> int:
        return round((EPOCH_S + self._loop.now_s + self._skew_s) * SECOND_NS)

    def _since_boot_ns(self, which: int) -> int:
        del which
        return round((self._loop.now_s - self._started_at_s) * SECOND_NS)

    def _boot_id(self) -> str:
        return f"boot {self.starts}"

    def _release(self, process: str) -> None:
        """Close the files of a dead process, as the kernel does: its locks are free then."""
        for db in self._databases.pop(process, ()):
            if db._connection is not None:
                db._connection.close()
                db._connection = None
        for lock in self._locks.pop(process, ()):
            lock.close()


def _noting(kind: type, made: dict[str, list[Any]]) -> Any:
    """Return the constructor of a kind of thing, which notes whose each of them is."""
    construct = kind.__init__

    def noting(thing: Any, *args: Any, **more: Any) -> None:
        construct(thing, *args, **more)
        made.setdefault(PROCESS.get(), []).append(thing)

    return noting
