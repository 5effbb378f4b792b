"""Brings a file to the newest schema, or refuses it untouched.

What all migrations add up to, table by table, is in docs/schema.sql.

Rule: a file is looked at read-only before anything is written to it. One that is not ours, is
newer than we are, or is damaged, stays as it is to the byte.
"""

import functools
import importlib
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crawler.errors import CrawlerError, Exit
from crawler.failpoints import failpoint
from crawler.storage import schema
from crawler.storage.files import JOURNAL_MAGIC, beside, is_immutable, look
from crawler.storage.ownership import require_trusted
from crawler.storage.schema import require_our_schema

AT_ONCE = "at_once.sql"
APPLICATION_ID = 0x43524157  # "CRAW", in the header of every file of ours
OLDEST_SQLITE = (3, 40, 0)
OF_THE_DISK = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""SQLite's primary result codes that say nothing of what is in a file."""
DUMPED = (
    "sqlite3 FILE 'PRAGMA application_id = 1129464151; PRAGMA user_version = N',"
    " N being what SELECT max(version) FROM migrations says"
)
LONGEST_VALUE_BYTES = 64 * 2**20
"""No value of ours comes near: a response is read up to a bound that is smaller."""
_MADE_BY_STATEMENTS = ("asked", "settings")
CHECKED_IN_PASSING_S = 2.0
"""A table that computes what it holds can make the check of a small file long. Ours do not."""
CHECKED_IN_PASSING_BYTES = 8 * 2**20
"""Files up to this size are checked for damage whenever they are opened; larger ones by
`crawler check`."""


class Migration(NamedTuple):
    """A numbered SQL file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The digest by which an edited file is known."""
        import hashlib  # noqa: PLC0415 - commands that only read never need it

        return hashlib.sha256(self.sql.encode()).hexdigest()


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """Return the migrations in their order. Raises AssertionError if their numbers have gaps."""
    (folder,) = importlib.import_module("crawler.migrations").__path__
    found = tuple(
        Migration(int(file.name[:4]), file.name, file.read_text("utf-8"))
        for file in sorted(Path(folder).glob("[0-9][0-9][0-9][0-9]_*.sql"))
    )
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    return found


def at_once() -> str | None:
    """Return what all migrations add up to, as one script; None where that is not known.

    A new file is made by it, and schemas are compared with it: the changes one by one take 100 ms.
    """
    (folder,) = importlib.import_module("crawler.migrations").__path__
    script = _text(Path(folder) / AT_ONCE)
    return script if script.startswith(mark_of(migrations())) else None


def mark_of(known: Sequence[Migration]) -> str:
    """Return the first line of a script that was made of some migrations, and of no others."""
    return f"-- made of migrations {zlib.crc32(''.join(one.sql for one in known).encode()):08x}\n"


@functools.cache
def _text(file: Path) -> str:
    return file.read_text("utf-8")


def _scripts(version: int) -> list[str]:
    """Return scripts that make the schema of a version."""
    script = at_once() if version == newest_version() else None
    return [script] if script else [known.sql for known in migrations()[:version]]


def newest_version() -> int:
    """Return the schema version that this program writes."""
    return len(migrations())


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file for reading alone, bounded in what it may make SQLite do."""
    how = "&immutable=1" if is_immutable(path) else ""
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{how}", uri=True, isolation_level=None
    )
    bound(conn)
    return conn


def bound(conn: sqlite3.Connection) -> None:
    """Bound what the schema and the values of a file can do to whoever opens it.

    By SQLite's own reading of the schema nothing runs but what has the name of a trigger or view
    of ours; that those are ours is compared before, in `schema`. It costs nothing for each row:
    SQLite asks when it prepares a statement, which is once.
    """
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE_BYTES)
    conn.execute("PRAGMA trusted_schema = OFF")
    known = _runnable()

    def allow(*asked: object) -> int:
        inside = asked[-1]
        ours = inside is None or str(inside).lower() in known
        return sqlite3.SQLITE_OK if ours else sqlite3.SQLITE_DENY

    conn.set_authorizer(allow)


@functools.cache
def _runnable() -> frozenset[str]:
    """Return the names of our triggers and views, also of those of older versions.

    SQLite names the tables that a statement makes itself (WITH) in the same place.
    """
    made = re.compile(r"^CREATE (?:TRIGGER|VIEW) (\w+)", re.MULTILINE)
    names = (name for known in migrations() for name in made.findall(known.sql))
    return frozenset((*names, *_MADE_BY_STATEMENTS))


def guards() -> list[tuple[str, str, str]]:
    """Return type, name and text of each index and trigger of a file of the newest version."""
    return schema.guards(_scripts(newest_version()))


def inspect(path: Path, *, to_write: bool = False) -> int:
    """Return the schema version of a file without changing a byte of it; 0 for an empty one.

    Raises CrawlerError where the file is not ours to write to, and sqlite3.Error where the disk
    does not let us know.
    """
    _require_sqlite()
    look(path, to_write=to_write)
    if not path.is_file():
        raise _refused(path, "it is not a file", "name another file with --db")
    if path.stat().st_size == 0:
        return 0
    if not os.access(path, os.R_OK):
        raise _refused(path, "no permission to read it", "name another file with --db")
    try:
        conn = open_to_read(path)
        try:
            version = _version_of(conn, path)
            require_our_schema(conn, path, _scripts(version))
            if path.stat().st_size <= CHECKED_IN_PASSING_BYTES:
                _require_sound(conn, path)
            if to_write and version:
                require_trusted(conn, path, version)
            return version
        finally:
            conn.close()
    except UnicodeDecodeError as error:
        # What SQLite says of a damaged schema quotes it, and that may be no text.
        raise _refused(path, "it is damaged", "restore a copy of it: docs/backup.md") from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in OF_THE_DISK:
            raise
        if code == sqlite3.SQLITE_READONLY_ROLLBACK and _never_made(path):
            return 0
        raise _refused(
            path, str(error), "name another file with --db, or restore a copy"
        ) from error


def migrate(conn: sqlite3.Connection, now_ms: int) -> None:
    """Apply what a database lacks. To be called inside a transaction, under the write lock.

    Raises CrawlerError if a migration that has been applied is no longer what it was.
    """
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if version == 0:
        conn.execute(
            "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY,"
            " name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT"
        )
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if script := at_once():
            _make(conn, script)
            _note(conn, migrations(), now_ms)
            return
    known = migrations()
    applied = dict(conn.execute("SELECT version, sha256 FROM migrations"))
    for migration in known:
        if migration.version > version:
            _apply(conn, migration, now_ms)
        elif applied.get(migration.version) != migration.sha256:
            raise CrawlerError(
                f"migration {migration.name} is not the one that this database was made with",
                "its text has changed since it was applied",
                "reinstall the program, or restore the migration",
                Exit.CONFIGURATION,
            )


@functools.cache
def statements(script: str) -> tuple[str, ...]:
    """Split a script into its statements (`executescript` would commit what came before it)."""
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    assert all(line.lstrip().startswith("--") for line in statement.splitlines() if line.strip())
    return tuple(found)


def _apply(conn: sqlite3.Connection, migration: Migration, now_ms: int) -> None:
    _make(conn, migration.sql)
    _note(conn, [migration], now_ms)


def _make(conn: sqlite3.Connection, script: str) -> None:
    for statement in statements(script):
        conn.execute(statement)
    failpoint("migrating")


def _note(conn: sqlite3.Connection, applied: Sequence[Migration], now_ms: int) -> None:
    """Put on record which migrations a file has had."""
    for migration in applied:
        conn.execute(
            "INSERT INTO migrations VALUES (?, ?, ?, ?)",
            (migration.version, migration.name, migration.sha256, now_ms),
        )
        conn.execute(f"PRAGMA user_version = {migration.version}")


def _version_of(conn: sqlite3.Connection, path: Path) -> int:
    conn.execute("BEGIN")  # one look: somebody may be making the file at this moment
    (application_id,) = conn.execute("PRAGMA application_id").fetchone()
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    (tables,) = conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application_id, version) == (0, 0) and _is_dumped(conn):
        raise _refused(
            path,
            "it was made from the text of .dump, which leaves two numbers out",
            DUMPED,
        )
    if application_id != APPLICATION_ID and (tables or version or application_id):
        raise _refused(path, "it is the database of another program", "name another file with --db")
    newest = len(migrations())
    if version > newest:
        raise _refused(
            path,
            f"its schema is version {version}, and this program knows {newest}",
            "upgrade the program: pip install --upgrade quotacrawl",
        )
    assert isinstance(version, int)
    return version


def _is_dumped(conn: sqlite3.Connection) -> bool:
    """Tell whether a database knows which migrations of ours it has had."""
    try:
        rows = conn.execute("SELECT name, sha256 FROM migrations ORDER BY version").fetchall()
    except sqlite3.OperationalError:
        return False
    return bool(rows) and rows[0] == (migrations()[0].name, migrations()[0].sha256)


def _require_sound(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is damaged, as far as that is seen in a short time."""
    give_up_at = time.monotonic() + CHECKED_IN_PASSING_S
    conn.set_progress_handler(lambda: time.monotonic() > give_up_at, 10)
    try:
        (verdict,) = conn.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        conn.set_progress_handler(None, 0)
    unread = re.search(r"unable to get the page\. error code=(\d+)", verdict)
    if unread and int(unread[1]) & 0xFF in OF_THE_DISK:
        cause, hint = f"a page of it can't be read ({verdict})", "repair the disk, then run again"
        raise CrawlerError(f"{path} can't be read or written", cause, hint, Exit.DATABASE)
    if verdict != "ok":
        raise _refused(path, f"it is damaged ({verdict})", "restore a copy of it: docs/backup.md")


def _never_made(path: Path) -> bool:
    """Tell whether a file's first transaction was cut short, so that nothing is in it yet.

    Its journal says so: it would bring the file back to 0 pages. Whoever opens it to write does.
    """
    with beside(path.resolve(), "journal").open("rb") as journal:
        header = journal.read(20)
    return header.startswith(JOURNAL_MAGIC) and header[16:] == bytes(4)


def _refused(path: Path, cause: str, hint: str) -> CrawlerError:
    return CrawlerError(f"{path} can't be used", cause, hint, Exit.CONFIGURATION)


def _require_sqlite() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise CrawlerError(
            f"this Python's SQLite is too old ({sqlite3.sqlite_version})",
            f"the ledger needs SQLite {oldest} or newer",
            "use a Python that brings a newer SQLite",
            Exit.CONFIGURATION,
        )
