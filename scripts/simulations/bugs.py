"""Mistakes that others have made, planted on purpose: each is caught by the suite that it is for.

Rule: a bug is a patch from outside; nothing in the product knows of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from crawler import database


@contextmanager
def synchronous_off() -> Iterator[None]:
    """COMMIT returns before the disk has it."""
    settings = [
        "PRAGMA synchronous = OFF" if "synchronous" in setting else setting
        for setting in database.SETTINGS
    ]
    with patch.object(database, "SETTINGS", tuple(settings)):
        yield


BUGS = {bug.__name__: bug for bug in (synchronous_off,)}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Run with a bug; None: without one. Raises KeyError if there is no such bug."""
    if name is None:
        yield
        return
    with BUGS[name]():
        yield
