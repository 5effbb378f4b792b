"""Files that are there whole or not at all.

Rule: a file is filled in under a hidden name that has the number of its process, and then gets its
own name. What a process has left that was killed is removed by the next one that writes the file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crawler.errors import CrawlerError, Exit


@contextmanager
def unfinished(path: Path, shown: object) -> Iterator[Path]:
    """Give a new, empty file of its owner's alone, beside the one that it is to become.

    Whoever fills it in gives it its name; else it is removed. Raises CrawlerError, in which the
    file is called as ``shown``, where the system refuses something.
    """
    _remove_left(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.close(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield hidden
    except OSError as error:
        raise CrawlerError(
            f"{shown} can't be written",
            error.strerror or str(error),
            "name another file",
            Exit.USAGE,
        ) from error
    finally:
        with suppress(OSError):
            hidden.unlink()


def _remove_left(path: Path) -> None:
    begin = f".{path.name}."
    with suppress(OSError):
        for found in path.parent.iterdir():
            process = found.name.removeprefix(begin)
            is_named_so = process != found.name and process.isdecimal()
            if is_named_so and found.is_file() and not Path(f"/proc/{process}").exists():
                found.unlink()
