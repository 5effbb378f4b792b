"""What a person is told when something can't be done: what, why, what to do next.

Rule: an error that a user can cause is a CrawlerError with all three lines and an exit code.
"""

from enum import IntEnum


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
            " ".join(line.splitlines()) for line in (self.what, self.cause, self.hint)
        )
        return f"error: {what}\n  cause: {cause}\n  hint: {hint}"
