"""`crawler check`: the promises of the file, put to the test."""

from pathlib import Path

import click

from crawler.cli.options import changed_database_option
from crawler.cli.terminal import as_record, print_json, print_line, tell
from crawler.clock import wall_ms
from crawler.errors import Exit, count_of
from crawler.ledger.check import check as check_file
from crawler.ledger.repair import mend
from crawler.storage.backup import back_up
from crawler.storage.database import prepare_file, reading, require_database, writing
from crawler.storage.upgrade import guards


@click.command(epilog="Examples: crawler check · crawler check --repair")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--repair", is_flag=True, help="Mend what can be computed, after a backup.")
@changed_database_option
def check(db: Path, *, as_json: bool, repair: bool) -> int:
    """Check every invariant of the file; exit code 1 if one is broken."""
    if repair:
        _repair(db)
    with reading(db) as conn:
        findings = check_file(conn)
    broken = [finding for finding in findings if finding.broken]
    if as_json:
        print_json([as_record(finding) for finding in findings])
        return Exit.UNEXPECTED if broken else Exit.DONE
    for finding in findings:
        mark = "BROKEN" if finding.broken else "ok    "
        print_line(f"{mark} {finding.name}: {finding.promise}")
        if finding.broken:
            times = count_of(finding.broken, "time")
            print_line(f"       {times}, for example {', '.join(finding.examples)}")
    if broken:
        print_line(
            "a copy that was made while a run was at work may be torn: crawler backup makes whole"
            " ones; crawler check --repair restores what can be computed (docs/backup.md)"
        )
    return Exit.UNEXPECTED if broken else Exit.DONE


def _repair(db: Path) -> None:
    """Mend a file, with a copy of what it was beside it."""
    copy = db.with_name(f"{db.name}.before-repair-{wall_ms()}")
    require_database(db)
    prepare_file(db)  # it is the user's to change, before anything is made
    back_up(db, copy, lambda _: None)
    tell(f"{copy} is what it was")
    with writing(db, wall_ms()) as writer:
        done = writer.run(mend, guards())
    tell("; ".join(done) if done else "there was nothing to mend")
