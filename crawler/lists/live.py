"""Lines of a pipe, as they come.

Rule: whoever reads on is told every second that time goes by, by an empty text between two lines:
what has been read can be used although no line comes. A real line has at least its line break.
"""

import codecs
import io
import os
import select
import stat
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

TICK_S = 1.0


def is_live(stream: BinaryIO) -> bool:
    """Tell whether a stream is a pipe, a socket or a terminal: what may keep its reader waiting."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it has no descriptor
        return False


def live_lines(reader: io.BufferedReader, encoding: str) -> Iterator[str]:
    """Yield the lines of a pipe; from the first one on, an empty text every second."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), False)  # noqa: FBT003
    pieces: list[str] = []
    tick_at = float("inf")
    while True:
        data = b""
        if tick_at == float("inf") or select.select([reader], [], [], max(0, tick_at - now()))[0]:
            data = reader.read1()
            pieces.append(decoder.decode(data, final=not data))
            if not data or "\n" in pieces[-1] or "\r" in pieces[-1]:
                lines = list(io.StringIO("".join(pieces), newline=""))
                pieces = [lines.pop()] if data and lines[-1][-1] not in "\r\n" else []
                yield from lines
                tick_at = min(tick_at, now() + TICK_S)
            if not data:
                return
        if now() >= tick_at:
            yield ""
            tick_at = now() + TICK_S


def now() -> float:
    """Return the seconds of a clock that nobody sets."""
    return time.monotonic()


def counted(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; what is none has that of the line before."""
    number = 0
    for line in lines:
        number += bool(line)
        yield number, line
