"""Options that several commands share, and what their values mean.

Rule: a value is checked where it is typed, so that nothing has happened when it is wrong.
"""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from crawler.cli.builtin import STUDY_NOTES, WORD_LIST, study_notes
from crawler.cli.terminal import printable
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.intake import Prompt, current_prompt, prompts, put_prompt
from crawler.ledger.takeover import put_default_limit
from crawler.providers import kind_of
from crawler.storage import ownership
from crawler.storage.database import Writer

MOST = 10**9
"""The largest number that makes sense for a limit, and more than anybody has."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WORDS = "words after --"
_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,6})?")
_DURATION = re.compile(r"(\d{1,15})\s*([smhd]?)")
_UNIT_MS = {"": 1_000, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class WordsOrFiles(click.Command):
    """A command whose arguments are words or files, and after ``--`` words alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put what stands after ``--`` aside; the rest is read as of any command."""
        before, after = args, []
        if "--" in args:
            at = args.index("--")
            before, after = args[:at], args[at + 1 :]
        ctx.meta[_WORDS] = after
        return super().parse_args(ctx, before)


def literal_words(ctx: click.Context) -> Sequence[str]:
    """Return what stands after ``--`` in the arguments of a `WordsOrFiles`."""
    words: Sequence[str] = ctx.meta.get(_WORDS, ())
    return words


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


class Number(click.ParamType[int]):
    """A number of at least 1, or none: 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; 0 for none."""
        if isinstance(value, int):
            return value
        if value == "none":
            return 0
        if not (value.isdecimal() and len(value) <= len(str(MOST)) and 0 < int(value) <= MOST):
            self.fail(f"{value!r} is neither none nor a whole number from 1 to {MOST}", param, ctx)
        return int(value)


class Budget(click.ParamType[float]):
    """How much to spend: a number above 0."""

    name = "budget"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        if isinstance(value, float):
            return value
        if not _AMOUNT.fullmatch(value) or not 0 < float(value) <= MOST:
            self.fail(
                f"{value!r} is no amount to spend: 200000, or 2.50 (six decimals)", param, ctx
            )
        return float(value)


class Price(click.ParamType[tuple[float, float]]):
    """What a million tokens cost, in and out."""

    name = "price"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return both prices."""
        if isinstance(value, tuple):
            return value
        price_in, _, price_out = value.partition("/")
        if not (_AMOUNT.fullmatch(price_in) and _AMOUNT.fullmatch(price_out)):
            self.fail(f"{value!r} is not IN/OUT, such as 0.30/2.50", param, ctx)
        return float(price_in), float(price_out)


class Moment(click.ParamType[int]):
    """A time of the day, a date and time, or a time span from now on, as ms since 1970."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return milliseconds."""
        if isinstance(value, int):
            return value
        now = datetime.now().astimezone()
        span = _DURATION.fullmatch(value.strip())
        if span is not None and span[2]:
            return wall_ms() + min(int(span[1]), MOST) * _UNIT_MS[span[2]]
        try:
            if re.fullmatch(r"\d{1,2}:\d\d", value.strip()):
                hour, minute = map(int, value.strip().split(":"))
                at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
                at += timedelta(days=1 if at <= now else 0)
            else:
                at = datetime.fromisoformat(value.strip()).astimezone()
        except ValueError:
            self.fail(f"{value!r} is no time: 7:30, 2026-12-24T18:00, 90s or 2h", param, ctx)
        if at <= now:
            self.fail(f"{value!r} is in the past", param, ctx)
        return int(at.timestamp() * 1000)


def _database(ctx: click.Context, param: click.Parameter, value: str | None) -> Path:
    del param
    named = value or ctx.find_root().params.get("db") or os.environ.get("CRAWLER_DB")
    return Path(str(named or "crawl.db"))


def not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a name that is one. Raises BadParameter."""
    if value is not None and not value.strip():
        raise click.BadParameter("it must not be empty", ctx, param)
    return value


def _emulator(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    del ctx, param
    if value is not None:
        # Where the provider looks for it: an address is never written to the database.
        os.environ["VERTEX_EMULATOR_HOST"] = value


def one_argument(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> str:
    """Return the one text that an argument is, for click. Raises CrawlerError for several."""
    if not value:
        raise click.MissingParameter(ctx=ctx, param=param)
    return one_text(ctx, value)


def one_text(ctx: click.Context, value: Sequence[str]) -> str:
    """Return the only one of some texts. Raises CrawlerError for several."""
    if len(value) == 1:
        return value[0]
    whole = " ".join(value)
    raise CrawlerError(
        f"there are {len(value)} arguments where one is meant",
        "what has blanks in it must be quoted",
        f"{ctx.command_path} {quoted(whole)}",
        Exit.USAGE,
    )


endpoint_option = click.option(
    "--endpoint",
    metavar="HOST:PORT",
    callback=_emulator,
    expose_value=False,
    help="An emulator of Vertex AI on this machine  [env: VERTEX_EMULATOR_HOST]",
)
"""Gives a command that makes calls the address of an emulator."""


database_option = click.option(
    "--db",
    metavar="PATH",
    callback=_database,
    help="The database  [env: CRAWLER_DB; default: crawl.db]",
)
"""Gives a command its database, named before or after the command."""


def _trust(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    del ctx, param
    ownership.trusting = value


_trust_option = click.option(
    "--trust",
    is_flag=True,
    callback=_trust,
    expose_value=False,
    help="You trust a database that somebody else made; to be said once.",
)


def changed_database_option(command: _Command) -> _Command:
    """Give a command the database that it changes, which the user made or has to trust."""
    return database_option(_trust_option(command))


def found(prompt: Prompt | None, name: str) -> Prompt:
    """Return a prompt that a user has named. Raises CrawlerError if there is none, or no more."""
    if prompt is not None and prompt.removed:
        raise CrawlerError(
            f"the prompt {name!r} is removed",
            "it is asked no more; its answers stay in the file",
            f"crawler prompt edit {quoted(name)} --to {prompt.version}",
            Exit.USAGE,
        )
    if prompt is None:
        raise CrawlerError(
            f"there is no prompt {name!r}",
            "it has not been added to this database",
            "crawler prompt list shows those that there are; crawler prompt add adds one",
            Exit.USAGE,
        )
    return prompt


def prompt_option(what: str) -> Callable[[_Command], _Command]:
    """Return what gives a command the name of a prompt; None where a user has named none."""
    told = f"{what}  [default: the only one there is]"
    return click.option("--prompt", "name", metavar="NAME", help=told)


def require_no_other(db: Path, name: str | None) -> None:
    """Refuse the name of a prompt before a file is made for nothing. Raises CrawlerError."""
    if name is not None and name != STUDY_NOTES and not db.exists():
        found(None, name)


def meant(conn: sqlite3.Connection, name: str | None) -> str:
    """Return the name of the prompt that is meant: the one that is named, or the only one there is.

    Where there was never any it is the built-in one. Raises CrawlerError where there are several,
    or all are removed.
    """
    if name is not None:
        return name
    known = [one for one in prompts(conn) if one.current and one.name != WORD_LIST]
    names = [one.name for one in known if not one.removed]
    if len(names) > 1:
        raise CrawlerError(
            "it is not clear which prompt is meant",
            f"there are {', '.join(map(printable, names))}",
            f"name one: {click.get_current_context().command_path} … --prompt {quoted(names[0])}",
            Exit.USAGE,
        )
    if known and not names:
        found(known[0], known[0].name)
    return names[0] if names else STUDY_NOTES


def named_prompt(writer: Writer, name: str | None) -> Prompt:
    """Return the prompt that is meant, the built-in one also where it was never used before.

    Raises CrawlerError if there is none, or if it is not clear which.
    """
    name = writer.run(meant, name)
    prompt = writer.run(current_prompt, name)
    if prompt is None and name == STUDY_NOTES:
        spec = study_notes("local", None)
        limit_id = writer.run(put_default_limit, spec, kind_of("local").concurrency)
        prompt, _ = writer.run(put_prompt, spec, limit_id, wall_ms())
    return found(prompt, name)


def named_value(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE; what is JSON is read as JSON.

    Raises BadParameter.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--param")
    try:
        return name, json.loads(value)
    except (RecursionError, ValueError):
        return name, value
