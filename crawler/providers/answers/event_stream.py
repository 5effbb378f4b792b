"""Server-sent events: from bytes, cut anywhere, to the data of each event.

Rule: pure, and in linear time: where the bytes were cut makes no difference, not even within a
character or a line end. Whoever feeds it bounds how much is fed.

The format is that of the HTML standard (9.2.6). Names, ids and times to reconnect are left out:
nobody who streams an answer needs them.
"""

import re

_LINE_END = re.compile(b"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Reads one stream."""

    def __init__(self) -> None:
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: list[bytes] = []  # the lines of data of an event whose end has not come
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in the next bytes; return the data of the events that end with them.

        Events without data, which only keep a connection alive, are left out.
        """
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # the other half of a line end
        self._after_cr = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        events = [event for line in ended if (event := self._end_line(line))]
        self._line += rest
        return events

    def end(self) -> list[bytes]:
        """Return the data of an event after which the stream ended without a blank line."""
        self._after_cr = False
        return self.feed(b"\n\n")

    def _end_line(self, rest: bytes) -> bytes:
        """Return the data of the event that a line ends; nothing where it ends none."""
        line = bytes(self._line + rest)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            data = b"\n".join(self._data)
            self._data.clear()
            return data if data.strip() else b""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return b""
