"""What a person is told when something can't be done: what, why, what to do next.

Rule: an error that a user can cause is a CrawlerError with all three lines and an exit code. Where
a hint is a command, each word of it that somebody else may have chosen is `quoted`.
"""

import shlex
import unicodedata
from enum import IntEnum

JOINERS = "\u200c\u200d"
"""Unseen, but some words are spelt with them."""
LONGEST_LINE = 1_000
"""Characters of a line of an error."""
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are blanks to look at."""


class Exit(IntEnum):
    """Exit codes of the program (numbers from sysexits.h where it has one)."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    SOME_FAILED = 3  # done, but some requests failed
    UNREACHABLE = 69
    DATABASE = 73  # can't be written, or is in use
    WORK_LEFT = 75  # stopped with work left: run again
    DENIED = 77
    CONFIGURATION = 78  # bad configuration, or a newer schema


def count_of(count: int, noun: str) -> str:
    """Return a number of things in words: ``1 row``, ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def quoted(text: object) -> str:
    """Return a text as the shell takes it for one word of a command, and nobody for anything else.

    In double quotes where they do, as people write them. What can't be seen is spelt out.
    """
    text = "".join(map(_spelt, str(text)))
    if shlex.quote(text) == text:
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _spelt(char: str) -> str:
    if unicodedata.category(char) not in _UNSEEN or char in JOINERS:
        return char
    return " " if char == "\t" else char.encode("unicode_escape").decode()


def _short(line: str) -> str:
    """Return a line as long as a person reads it: it may quote what somebody else has written."""
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


class CrawlerError(Exception):
    """An error in three lines.

    Args:
        what: what could not be done.
        cause: why.
        hint: the next thing to do, a command where there is one.
        exit_code: what the program ends with.

    """

    def __init__(self, what: str, cause: str, hint: str, exit_code: Exit) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        what, cause, hint = (
            _short(" ".join(line.splitlines())) for line in (self.what, self.cause, self.hint)
        )
        return f"error: {what}\n  cause: {cause}\n  hint: {hint}"


def missing_package(what: str, package: str, extra: str, otherwise: str) -> CrawlerError:
    """Return the error for a package that only some need: what can't be done, and another way."""
    return CrawlerError(
        f"{what}: a package is missing",
        f"{package} is not installed",
        f"pip install 'quotacrawl[{extra}]', or {otherwise}",
        Exit.CONFIGURATION,
    )


def require_name(name: str) -> None:
    """Refuse a name that can't be seen, or only in part. Raises CrawlerError."""
    seen = "".join(char for char in name if char not in JOINERS)
    if seen.isprintable() and seen.strip(f" {BLANKS}"):
        return
    raise CrawlerError(
        f"{name!r} is no name",
        "it has characters in it that can't be seen, or nothing else",
        "name it in letters, digits and signs",
        Exit.USAGE,
    )
