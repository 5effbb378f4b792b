"""`crawler check`: the promises of the file, put to the test."""

from pathlib import Path

import click

from crawler.cli.options import database_option
from crawler.cli.terminal import as_record, print_json, print_line
from crawler.errors import Exit
from crawler.ledger.check import check as check_file
from crawler.storage.database import reading


@click.command(epilog="Example: crawler check")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_option
def check(db: Path, *, as_json: bool) -> int:
    """Check every invariant of the file; exit code 1 if one is broken."""
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
            print_line(f"       {finding.broken} times, for example {', '.join(finding.examples)}")
    return Exit.UNEXPECTED if broken else Exit.DONE
