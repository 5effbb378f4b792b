"""Options that several commands share, and what their values mean.

Rule: a value is checked where it is typed, so that nothing has happened when it is wrong.
"""

import os
import re
from pathlib import Path
from typing import Any

import click

from crawler.errors import CrawlerError, Exit
from crawler.ledger.intake import Prompt

MOST = 10**9
"""The largest number that makes sense for a limit, and more than anybody has."""

_DURATION = re.compile(r"(\d+)\s*([smhd]?)")
_UNIT_MS = {"": 1_000, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Duration(click.ParamType[int]):
    """A time span such as 90s, 10m, 2h or 1d, as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return milliseconds."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is no time span: write 90s, 10m, 2h or 1d", param, ctx)
        return min(int(match[1]), MOST) * _UNIT_MS[match[2]]


def _database(ctx: click.Context, param: click.Parameter, value: str | None) -> Path:
    del param
    named = value or ctx.find_root().params.get("db") or os.environ.get("CRAWLER_DB")
    return Path(str(named or "crawl.db"))


def not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a name that is one. Raises BadParameter."""
    if value is not None and not value.strip():
        raise click.BadParameter("it must not be empty", ctx, param)
    return value


database_option = click.option(
    "--db",
    metavar="PATH",
    callback=_database,
    help="The database  [env: CRAWLER_DB; default: crawl.db]",
)
"""Gives a command its database, named before or after the command."""


def found(prompt: Prompt | None, name: str) -> Prompt:
    """Return a prompt that a user has named. Raises CrawlerError if there is none."""
    if prompt is None:
        raise CrawlerError(
            f"there is no prompt {name!r}",
            "it has not been added to this database",
            "crawler prompt list shows those that there are; crawler prompt add adds one",
            Exit.USAGE,
        )
    return prompt
