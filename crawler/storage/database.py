"""Opens database files: who may, with which settings, and what one transaction is.

Rule: every connection of the package is opened here, and every write is one call of `transact`.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar

from crawler.errors import CrawlerError, Exit, quoted
from crawler.failpoints import failpoint
from crawler.storage.dead_runs import note_log
from crawler.storage.files import is_alone, look
from crawler.storage.locks import LockTimeout, WriteLock, run_is_alive
from crawler.storage.ownership import RECORDED_SINCE, record, whose
from crawler.storage.upgrade import bound, inspect, migrate, newest_version, open_to_read
from crawler.storage.waiting import is_busy, tries, writer

P = ParamSpec("P")
T = TypeVar("T")

SAFE = "then run again: what was recorded is safe"
_IN_USE = "another program is at work on it: close it there, then run again"
GONE = "no such index: "
TAKEN_AWAY = "crawler check tells what is missing; crawler check --repair makes indexes again"
_DAMAGED = "write nothing to it; crawler check tells what is broken, docs/backup.md how to restore"
_NOT_OURS = "see ls -l for the file, those beside it and their folder: you have to be allowed to"
HINTS = MappingProxyType(
    {
        sqlite3.SQLITE_AUTH: "it has a trigger that is not ours: crawler status names it",
        sqlite3.SQLITE_BUSY: _IN_USE,
        sqlite3.SQLITE_CANTOPEN: f"{_NOT_OURS} open them; {SAFE}",
        sqlite3.SQLITE_CORRUPT: _DAMAGED,
        sqlite3.SQLITE_FULL: f"free some space, {SAFE}",
        sqlite3.SQLITE_IOERR: f"repair the disk, or raise its quota, {SAFE}",
        sqlite3.SQLITE_LOCKED: _IN_USE,
        sqlite3.SQLITE_NOTADB: _DAMAGED,
        sqlite3.SQLITE_PERM: f"{_NOT_OURS} write them; {SAFE}",
        sqlite3.SQLITE_PROTOCOL: _IN_USE,
        sqlite3.SQLITE_READONLY: f"{_NOT_OURS} write them; {SAFE}",
    }
)
"""What to do about SQLite's primary result codes that speak of the file, not of the statement."""

SCHEDULER_CHECKPOINT_PAGES = 8_000
LEAST_HEAP_BYTES = 512 * 2**20
"""Four times the largest cache of ours."""

# A COMMIT that returns has reached the disk (FULL), also if the power goes next.
SETTINGS = (
    "PRAGMA busy_timeout = 1000",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
)


def transact(
    conn: sqlite3.Connection,
    lock: WriteLock,
    transaction: Callable[Concatenate[sqlite3.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a function as one transaction: all of it is on the disk, or nothing has changed.

    An error at COMMIT leaves it unknown which: then close, open again and read.
    """
    with _begun(conn, lock):
        try:
            result = transaction(conn, *args, **kwargs)
            failpoint("before_commit")
            conn.execute("COMMIT")
        except BaseException:
            # After a full disk or an I/O error SQLite may have rolled back already.
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        failpoint("after_commit")
        return result


@contextmanager
def _begun(conn: sqlite3.Connection, lock: WriteLock) -> Iterator[None]:
    """Begin a transaction; wait for other programs as long as it takes, without our lock."""
    for _ in tries(lock.database):
        with lock.held():
            failpoint("before_begin")
            try:
                conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                yield
                return
    raise LockTimeout


def prepare_file(path: Path) -> None:
    """See to it that a file may be written to, creating it for its owner alone if there is none.

    Raises CrawlerError, with the file unchanged.
    """
    look(path, to_write=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        failpoint("file_created")
    except FileExistsError:
        inspect(path, to_write=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    if not os.access(path, os.W_OK):
        raise _not_writable(path, PermissionError("no permission to write to it"))


def location(path: Path | None) -> str | Path:
    """Return what SQLite is to open: a whole path, since a file may be called `:memory:`, too."""
    return ":memory:" if path is None else path.absolute()


def configure(
    conn: sqlite3.Connection, lock: WriteLock, checkpoint_pages: int, now_ms: int
) -> None:
    """Give a writing connection its settings and the newest schema."""
    bound(conn)
    for setting in SETTINGS:
        conn.execute(setting)
    conn.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
    mode = _write_ahead(conn, lock)
    if mode not in ("wal", "memory"):
        raise CrawlerError(
            "the database can't be used here",
            f"its file system can't hold a write-ahead log (SQLite stays in mode {mode})",
            "put the database on a local disk: --db PATH",
            Exit.DATABASE,
        )
    transact(conn, lock, _upgrade, lock.database, now_ms)


def _upgrade(conn: sqlite3.Connection, database: Path | None, now_ms: int) -> None:
    """Bring the schema up to date, unless a program that knows only the old one is at work."""
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if 0 < version < newest_version() and database is not None:
        live = conn.execute("SELECT id FROM runs WHERE ended_at_ms IS NULL").fetchall()
        if any(run_is_alive(database, run_id) for (run_id,) in live):
            raise CrawlerError(
                f"{database} is of an older version, and an older program is at work on it",
                "it would not know what this program would make of the file",
                "let that run end, or stop it (Ctrl-C); then do this again",
                Exit.DATABASE,
            )
    migrate(conn, now_ms)
    if database is not None and newest_version() >= RECORDED_SINCE:
        record(conn, database, now_ms)


def _write_ahead(conn: sqlite3.Connection, lock: WriteLock) -> str:
    """Have a connection use a log, as soon as nobody is in the way; return the mode that it has."""
    for _ in tries(lock.database):
        with lock.held():
            try:
                return str(conn.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
    raise LockTimeout


@contextmanager
def writing(path: Path, now_ms: int) -> Iterator["Writer"]:
    """Open a file for a command that writes, creating it if need be. Raises CrawlerError."""
    with explained(path):
        _bound_heap(path)
        prepare_file(path)
        has_log = not is_alone(path)
        lock = WriteLock(path)
        conn = sqlite3.connect(location(path), isolation_level=None)
        try:
            # Only a run checkpoints while there may be others.
            configure(conn, lock, 0, now_ms)
            if has_log:  # it is in the file when this connection is closed, and gone
                transact(conn, lock, note_log, path)
            conn.execute("PRAGMA cache_size = -131072")  # a long list goes into one index
            yield Writer(conn, lock)
        finally:
            with lock.held():
                conn.close()
            lock.close()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for a command that only reads; never creates or changes one.

    Raises CrawlerError, also for a file of an older version: an older program may be at work on it.
    """
    version, newest = require_database(path), newest_version()
    if version < newest:
        raise CrawlerError(
            f"the database at {path} is of an older version",
            f"its schema is version {version}, and this program reads {newest}",
            "when no older program is at work on it: crawler run, or any command that writes",
            Exit.CONFIGURATION,
        )
    with explained(path):
        conn = open_to_read(path)
        try:
            conn.execute("PRAGMA query_only = ON")
            conn.execute("PRAGMA busy_timeout = 5000")
            yield conn
        finally:
            conn.close()


def _bound_heap(path: Path) -> None:
    """Bound what SQLite uses in this process, by how much there is to be read.

    For commands alone: a program that calls `crawl` may use SQLite for other things, too.
    """
    conn = sqlite3.connect(":memory:")
    size = path.stat().st_size if path.exists() else 0
    bound_memory(conn, LEAST_HEAP_BYTES + 2 * size)
    conn.close()


def bound_memory(conn: sqlite3.Connection, most_bytes: int) -> None:
    """Bound what SQLite uses in this process from here on; beyond it raises MemoryError."""
    conn.execute(f"PRAGMA hard_heap_limit = {most_bytes:d}")


def open_table_functions(conn: sqlite3.Connection) -> None:
    """Make the table functions of JSON; to a strict authorizer that looks like a change."""
    conn.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()


def require_database(path: Path) -> int:
    """Return the schema version of a file that has something in it. Raises CrawlerError."""
    if not path.exists():
        look(path, to_write=False)
        raise CrawlerError(
            f"there is no database at {path}",
            "nothing has been added yet, or it is elsewhere",
            f"crawler --db {quoted(path)} add WORDS",
            Exit.CONFIGURATION,
        )
    with explained(path):
        _bound_heap(path)
        version = inspect(path)
    if version == 0:
        raise CrawlerError(
            f"the database at {path} is empty",
            "nothing has been added yet",
            f"crawler --db {quoted(path)} add WORDS",
            Exit.CONFIGURATION,
        )
    return version


class Writer:
    """An open file and the right to write to it."""

    def __init__(self, conn: sqlite3.Connection, lock: WriteLock) -> None:
        self._conn = conn
        self._lock = lock

    def run(
        self,
        transaction: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function as one transaction."""
        return transact(self._conn, self._lock, transaction, *args, **kwargs)

    def checkpoint(self) -> None:
        """Write the log to the file, as far as no reader is in the way: for long writing alone."""
        with self._lock.held():
            self._conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file into an error that tells what to do."""
    try:
        yield
    except LockTimeout as error:
        raise CrawlerError(
            f"{path} is in use",
            f"{writer(path)} has been writing to it for too long",
            f"wait for it, or end it (crawler status shows who runs); {SAFE}",
            Exit.DATABASE,
        ) from error
    except sqlite3.DatabaseError as error:
        is_no_text = str(error).startswith("Could not decode to UTF-8")  # Python's, without a code
        code = sqlite3.SQLITE_CORRUPT if is_no_text else getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_ERROR and str(error).startswith(GONE):
            raise _unusable(path, str(error), TAKEN_AWAY) from error
        if code & 0xFF not in HINTS:
            raise  # a mistake of ours
        raise _unusable(path, str(error), HINTS[code & 0xFF]) from error
    except MemoryError as error:  # SQLite's, too
        raise _unusable(path, "no memory is left", f"free some memory, {SAFE}") from error


def _unusable(path: Path, cause: str, hint: str) -> CrawlerError:
    return CrawlerError(
        f"{path} can't be read or written",
        cause + whose(path),
        hint,
        Exit.DATABASE,
    )


def _not_writable(path: Path, error: OSError) -> CrawlerError:
    return CrawlerError(
        f"{path} can't be written",
        error.strerror or str(error),
        "name another file with --db",
        Exit.DATABASE,
    )
