"""`crawler backup`: a whole copy, while runs are at work."""

import sqlite3
from pathlib import Path

import click

from crawler.cli.options import database_option
from crawler.cli.terminal import printable, tell
from crawler.errors import CrawlerError, Exit, count_of
from crawler.ledger.check import check
from crawler.ledger.status import answers
from crawler.storage.backup import back_up


@click.command(epilog="Example: crawler backup /backups/crawl-2026-12-24.db")
@click.argument("file", metavar="FILE")
@database_option
def backup(file: str, db: Path) -> None:
    """Copy the database into a new FILE, whole and checked, also while it is being crawled.

    A copy that cp makes lacks what is in the file's -wal. To go on with a backup: docs/backup.md.
    """
    if not Path(file).name or file.endswith("/") or Path(file).is_dir():
        raise CrawlerError(
            f"{printable(file)!r} can't be the backup",
            "it is a folder, or no name at all",
            "name a new file: crawler backup backup.db",
            Exit.USAGE,
        )
    counted = 0

    def require_good(copy: sqlite3.Connection) -> None:
        nonlocal counted
        broken = [finding.name for finding in check(copy) if finding.broken]
        counted = answers(copy)
        if broken:
            raise CrawlerError(
                f"{db} breaks invariants, and its copy would, too",
                f"broken: {', '.join(broken)}",
                "crawler check tells more; crawler check --repair restores what can be computed",
                Exit.UNEXPECTED,
            )

    back_up(db, Path(file), require_good)
    tell(f"{file} holds all of {db}: {count_of(counted, 'answer')}")
