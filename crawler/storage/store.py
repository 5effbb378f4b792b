"""The ledger behind an event loop: one function = one transaction = one hop to its thread.

Rule: a transaction is awaited to its end even when its caller is cancelled, so none is ever left
half done, and the connection is always closed, because aiosqlite's thread would otherwise keep the
interpreter alive. This file is the only one that knows aiosqlite; it uses one protected name of it,
`_execute`, because awaiting statement by statement is some eight times slower and not atomic.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.failpoints import failpoint
from crawler.storage.cancellation import to_its_end
from crawler.storage.database import (
    SCHEDULER_CHECKPOINT_PAGES,
    configure,
    explained,
    location,
    prepare_file,
    transact,
)
from crawler.storage.locks import LockTimeout, WriteLock

P = ParamSpec("P")
T = TypeVar("T")


CHECKPOINTED_EVERY = 5
"""So many seconds of answers a copy of the file alone lacks at the most, if no reader is long."""
CHECKPOINTS = MappingProxyType(
    {
        "PASSIVE": "PRAGMA wal_checkpoint(PASSIVE)",
        "TRUNCATE": "PRAGMA wal_checkpoint(TRUNCATE)",
    }
)


class Store:
    """An open database; made by `open_store`."""

    def __init__(self, db: aiosqlite.Connection, lock: WriteLock, path: Path | None) -> None:
        self._db = db
        self._lock = lock
        self.path = path
        """The file; None for a database in memory."""
        self.has_failed = False
        """A transaction has met an error of the database: what is in the file is not known."""
        self._inode = _inode(path)
        self._tended = 0

    async def run(
        self,
        transaction: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function as one transaction and return what it returns.

        If the caller is cancelled, the transaction still ends first, one way or the other. Then
        `has_failed` tells of an error that the cancellation has hidden.
        """

        def work(conn: sqlite3.Connection) -> T:
            try:
                return transact(conn, self._lock, transaction, *args, **kwargs)
            except (sqlite3.Error, LockTimeout, MemoryError):
                self.has_failed = True
                raise

        return await to_its_end(_hop(self._db, work))

    async def tend(self) -> None:
        """See that the file is in its place, and now and then that it holds what is in the log.

        To be called about once a second. Raises CrawlerError.
        """
        await self.require_file()
        self._tended += 1
        if self._tended % CHECKPOINTED_EVERY == 0:
            await self.checkpoint()

    async def checkpoint(self, how: str = "PASSIVE") -> None:
        """Write what is in the log to the file itself, as far as no reader is in the way."""
        await self._outside_transactions(lambda conn: conn.execute(CHECKPOINTS[how]).fetchall())

    async def require_file(self) -> None:
        """Raise CrawlerError if the file is not where it was: what is written would be lost.

        A file that has only been moved gets what is still in its log.
        """
        moved_to = None if _inode(self.path) == self._inode else _place_of(self._inode)
        if moved_to is not None:
            await self.checkpoint("TRUNCATE")
            self.has_failed = True
            raise CrawlerError(
                f"{self.path} has been moved to {moved_to}",
                "what was recorded is all in it; calls in flight are asked again",
                f"crawler --db {quoted(moved_to)} run",
                Exit.DATABASE,
            )
        if not self._lock.is_in_place():
            self.has_failed = True
            raise CrawlerError(
                f"{self.path}-lock has been removed, or another file is there now",
                "a process that starts now can't see this run",
                "leave that file where it is; then crawler run",
                Exit.DATABASE,
            )
        if _inode(self.path) != self._inode:
            self.has_failed = True
            raise CrawlerError(
                f"{self.path} has been removed, or another file is there now",
                "what the run still had to record would be lost with it",
                "find out what moves or removes the file, and stop it; then crawler run",
                Exit.DATABASE,
            )

    async def _outside_transactions(self, act: Callable[[sqlite3.Connection], object]) -> None:
        """Do something with the connection, while nobody writes."""

        def work(conn: sqlite3.Connection) -> None:
            try:
                with self._lock.held():
                    act(conn)
            except (sqlite3.Error, LockTimeout, MemoryError):
                self.has_failed = True
                raise

        await to_its_end(_hop(self._db, work))

    async def between_transactions(self, act: Callable[[], None]) -> None:
        """Do something in the loop's thread while no transaction is under way, nor can begin."""
        loop, parked, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def park(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(parked.set)
            go_on.wait()

        hop = asyncio.ensure_future(_hop(self._db, park))
        try:
            await parked.wait()
            act()
        finally:
            go_on.set()
            await hop


def _inode(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from any other; None where there is none."""
    try:
        found = None if path is None else path.stat()
    except FileNotFoundError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _place_of(inode: tuple[int, int] | None) -> str | None:
    """Return where a file that this process holds open has been moved to; None if it is gone."""
    try:
        held = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return None
    for fd in held:
        with suppress(OSError):
            place = fd.readlink()
            if _inode(place) == inode is not None:
                return str(place)
    return None


@asynccontextmanager
async def open_store(database: Path | None) -> AsyncIterator[Store]:
    """Open a file (None: a database in memory) for a run, creating it if need be.

    Raises CrawlerError, also for what goes wrong with the file later.
    """
    with explained(database or Path(":memory:")):
        if database is not None:
            prepare_file(database)
        lock = WriteLock(database)
        try:
            # A file that can't be opened says so here: in aiosqlite's thread it would leave a
            # thread behind that outlives the loop, and dies of that.
            conn = sqlite3.connect(
                location(database), isolation_level=None, check_same_thread=False
            )
            db = aiosqlite.Connection(lambda: conn, iter_chunk_size=64)
            async with db:
                now_ms = wall_ms()
                await _hop(
                    db, lambda conn: configure(conn, lock, SCHEDULER_CHECKPOINT_PAGES, now_ms)
                )
                try:
                    yield Store(db, lock, database)
                finally:
                    await _close(db, lock)
        finally:
            lock.close()


async def _close(db: aiosqlite.Connection, lock: WriteLock) -> None:
    """Close under the lock: the last connection to close checkpoints."""

    def close(conn: sqlite3.Connection) -> None:
        with lock.held():
            failpoint("closing")
            conn.close()

    await to_its_end(_hop(db, close))


async def _hop(db: aiosqlite.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function on the connection, in its thread."""
    execute: Callable[..., Awaitable[T]] = db._execute  # noqa: SLF001 - see above
    return await execute(lambda: function(db._conn))  # noqa: SLF001
