"""Named points at which the program kills itself when it is told to; for its tests.

Rule: CRAWLER_DIE_AT names the point, as `leased`, or `leased:3` for the third time that it is
passed. The death is a SIGKILL: nothing is cleaned up, as when the system takes the process away.
Where the variable isn't set, a point costs the look into an empty dictionary.
"""

import functools
import os
import re
import signal

from crawler.errors import CrawlerError, Exit

VARIABLE = "CRAWLER_DIE_AT"
POINTS = (
    "file_created",  # and not configured: it is empty
    "migrating",  # a migration's statements are made, and it is not on record
    "before_begin",  # of any transaction, with the write lock held
    "before_commit",
    "after_commit",  # with the write lock held
    "run_recorded",  # and it has no lock yet
    "run_locked",  # and the record of it is not committed
    "leased",  # on record, and not handed out
    "submitted",  # handed out, and nothing is sent
    "answered",  # the executor has an answer, and the loop does not know of it
    "outcomes_taken",  # the loop has answers that are not on record
    "dead_run_ended",  # its lock's file is still there, and others may be dead as well
    "run_ending",  # its last answers are on record, its end is not
    "run_ended",  # its lock's file is still there
    "closing",  # the last one to close checkpoints
)


def failpoint(name: str) -> None:
    """Die here, if this is the place and the time."""
    armed = _armed()
    if name in armed:
        armed[name] -= 1
        if armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def _armed() -> dict[str, int]:
    """Return where to die, and how often that is still to be passed. Raises CrawlerError."""
    told = os.environ.get(VARIABLE)
    if told is None:
        return {}
    match = re.fullmatch(rf"({'|'.join(POINTS)})(?::([1-9]\d{{0,8}}))?", told)
    if match is None:
        raise CrawlerError(
            f"{VARIABLE}={told} names no failpoint",
            f"there are {', '.join(POINTS)}; each also with a count, as {POINTS[0]}:2",
            f"unset {VARIABLE}: it is for tests",
            Exit.CONFIGURATION,
        )
    return {match[1]: int(match[2] or 1)}
