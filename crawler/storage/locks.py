"""Operating system locks: who may write now, and which runs are alive.

Rule: a lock dies with its process, at once and whatever the clock says; nothing here waits for a
time-out to learn that somebody is gone. All of them are of one file beside the database, `-lock`:
the write lock is the file's, and each run has the byte of its number. Nothing is ever removed here.

The write lock is not SQLite's own. Before 3.51.3 SQLite may damage a WAL file when two connections
write or checkpoint at the same instant (the WAL-reset race), so our processes take turns.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crawler.errors import CrawlerError, Exit

WRITE_LOCK_TIMEOUT_S = 60.0


class LockTimeout(Exception):  # noqa: N818 - it says what happened
    """Somebody else has been writing for too long."""


class WriteLock:
    """The right to write to a database; one at a time over all processes."""

    def __init__(self, database: Path | None) -> None:
        """Open the lock's file beside the database; None (a database in memory) locks nothing."""
        self.database = database
        self._path = None if database is None else _beside(database, "lock")
        self._fd = None if self._path is None else _open(self._path)

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

    def is_in_place(self) -> bool:
        """Tell whether who comes now would find this lock; false if its file was taken away."""
        if self._fd is None or self._path is None:
            return True
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Give the file back."""
        if self._fd is not None:
            _close(self._fd)
            self._fd = None


class RunLock:
    """A sign of life: held from the start of a run to its end, freed by the kernel if it dies."""

    def __init__(self, database: Path | None, run_id: int) -> None:
        """Take the lock of a new run; to be called before anybody can see that run."""
        self._fd = None
        if database is not None and _HAS_BYTES:
            self._fd = _open(_beside(database, "lock"))
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _byte_of(run_id))
            except BlockingIOError as error:
                self.close()
                raise CrawlerError(
                    f"{database} can't be used by another run",
                    "a run of a file that was here before is still alive",
                    "end that process first",
                    Exit.DATABASE,
                ) from error
        elif database is not None:
            self._fd = _open(_beside(database, f"run-{run_id}"))
            _wait_for(self._fd)  # somebody may just be asking

    def close(self) -> None:
        """Give the lock back, as the end of the process would."""
        if self._fd is not None:
            _close(self._fd)
            self._fd = None


def run_is_alive(database: Path | None, run_id: int) -> bool | None:
    """Tell whether a run's process lives; None where there is no lock to ask."""
    if database is None:
        return None
    return _holds_byte(database, run_id) or _holds_file(database, run_id)


def may_be_alive(database: Path | None, run_ids: Iterable[int]) -> set[int]:
    """Return those of the runs whose process lives, as far as their locks can say."""
    return {run_id for run_id in run_ids if run_is_alive(database, run_id) is not False}


def _holds_byte(database: Path, run_id: int) -> bool:
    """Ask for a run's byte without taking it."""
    if not _HAS_BYTES:
        return False
    try:
        fd = os.open(_beside(database, "lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _byte_of(run_id))
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)


def _holds_file(database: Path, run_id: int) -> bool:
    """Ask a file of its own, which a run of an older program has, or of a system without bytes."""
    path = _beside(database, f"run-{run_id}")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` of Linux: type, whence, start, length, process."""
_HAS_BYTES = hasattr(fcntl, "F_OFD_SETLK")
"""Locks of the open file and not of the process, as flock's: one process may hold several, and to
close another descriptor of the file gives none of them up."""


def _byte_of(run_id: int) -> bytes:
    """Return the lock of the byte that is a run's. Nothing is ever written there."""
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, run_id, 1, 0)


def _beside(database: Path, suffix: str) -> Path:
    database = database.resolve()  # one file has one lock, whatever links lead to it
    return database.with_name(f"{database.name}-{suffix}")


_OPEN: set[int] = set()
"""The descriptors of this process's locks."""


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CrawlerError(
            f"{path} can't be locked",
            "it is a link" if path.is_symlink() else error.strerror or str(error),
            "the lock of a database is a file beside it that whoever writes may open",
            Exit.DATABASE,
        ) from error
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
