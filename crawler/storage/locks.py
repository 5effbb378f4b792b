"""Operating system locks: who may write now, and which runs are alive.

Rule: a lock dies with its process, at once and whatever the clock says; nothing here waits for a
time-out to learn that somebody is gone. Each lock is a file beside the database.

The write lock is not SQLite's own. Before 3.51.3 SQLite may damage a WAL file when two connections
write or checkpoint at the same instant (the WAL-reset race), so our processes take turns.
"""

import fcntl
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

WRITE_LOCK_TIMEOUT_S = 60.0


class LockTimeout(Exception):  # noqa: N818 - it says what happened
    """Somebody else has been writing for too long."""


class WriteLock:
    """The right to write to a database; one at a time over all processes."""

    def __init__(self, database: Path | None) -> None:
        """Open the lock's file beside the database; None (a database in memory) locks nothing."""
        self._fd = None if database is None else _open(_beside(database, "lock"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises LockTimeout."""
        if self._fd is None:
            yield
            return
        _wait_for(self._fd)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back."""
        if self._fd is not None:
            _close(self._fd)
            self._fd = None


class RunLock:
    """A sign of life: held from the start of a run to its end, freed by the kernel if it dies."""

    def __init__(self, database: Path | None, run_id: int) -> None:
        """Take the lock of a new run; to be called before anybody can see that run."""
        self._path = None if database is None else _run_file(database, run_id)
        self._fd = None if self._path is None else _open(self._path)
        if self._fd is not None:
            _wait_for(self._fd)  # somebody may just be asking

    def forget(self) -> None:
        """Remove the lock's file; for after the run's end is on record."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the lock back, as the end of the process would."""
        if self._fd is not None:
            _close(self._fd)
            self._fd = None


def run_is_alive(database: Path | None, run_id: int) -> bool | None:
    """Tell whether a run's process lives; None where its lock can't say (it has been removed)."""
    if database is None:
        return None
    try:
        fd = os.open(_run_file(database, run_id), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def may_be_alive(database: Path | None, run_ids: Iterable[int]) -> set[int]:
    """Return those of the runs whose process lives, as far as their locks can say."""
    return {run_id for run_id in run_ids if run_is_alive(database, run_id) is not False}


def forget_run(database: Path | None, run_id: int) -> None:
    """Remove the lock's file of a run whose death is on record."""
    if database is not None:
        _run_file(database, run_id).unlink(missing_ok=True)


def forget_all_but(database: Path | None, run_ids: Collection[int]) -> None:
    """Remove the locks' files of all other runs; to be called where no run can just be beginning.

    Who died after its end was on record has left one.
    """
    if database is None:
        return
    begin = _beside(database, "run-").name
    for path in database.resolve().parent.iterdir():
        number = path.name.removeprefix(begin)
        if number != path.name and number.isdecimal() and int(number) not in run_ids:
            path.unlink(missing_ok=True)


def _run_file(database: Path, run_id: int) -> Path:
    return _beside(database, f"run-{run_id}")


def _beside(database: Path, suffix: str) -> Path:
    database = database.resolve()  # one file has one lock, whatever links lead to it
    return database.with_name(f"{database.name}-{suffix}")


_OPEN: set[int] = set()
"""The descriptors of this process's locks."""


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _OPEN.add(fd)
    return fd


def _close(fd: int) -> None:
    _OPEN.discard(fd)
    os.close(fd)


def _forget_in_child() -> None:
    """Close a forked child's copies: the lock is freed only when its last descriptor is closed."""
    while _OPEN:
        os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_forget_in_child)


def _wait_for(fd: int) -> None:
    give_up_at = time.monotonic() + WRITE_LOCK_TIMEOUT_S
    pause_s = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise LockTimeout from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.01)
        else:
            return
