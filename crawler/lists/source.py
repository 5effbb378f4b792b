"""From bytes to text: what kind of file a list is, and how its characters are written.

Rule: a file is taken for what is in it, not for what it is named, and never guessed: what is no
text and no table is refused, and so is text whose encoding nobody has named.
"""

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from charset_normalizer import from_bytes

from crawler.errors import CrawlerError, Exit

HEAD = 1 << 16
"""Bytes from which the kind of a file is told."""
MOST_SAID = 500
"""Characters of what is said of a list: it may have put them there itself."""
MOST_UNPACKED = 200_000_000
"""Bytes that a packed list may become: what packs little into much is no list."""
NOTHING_ADDED = ", and nothing of it was added"
PARQUET, WORKBOOK, TEXT = "parquet", "workbook", "text"

_MARKS = [  # in this order: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_NO_LISTS = [
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old form (.xls)", "save it as .xlsx or .csv"),
    (b"SQLite format 3\0", "a SQLite database", "export the table as CSV, and add that"),
    (b"%PDF", "a PDF document", "copy its words into a text file, one a line"),
    (b"{\\rtf", "a document of a word processor (RTF)", "save it as plain text"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: unzstd"),
    (b"\x89PNG", "a picture", "a list is text, one word a line"),
    (b"\xff\xd8\xff", "a picture", "a list is text, one word a line"),
]
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_WESTERN = "‘’“”–—…€£°«»¿¡·"
_EUROPEAN = ("cp1250", "cp1254", "mac_roman", "cp437", "cp850")
_ENCODINGS = (
    "cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 koi8_r shift_jis euc_jp gb18030 big5 euc_kr"
    " mac_roman cp437 cp850"
).split()
"""In which lists are written beside UTF-8, the most frequent first."""


class _Unpacking(gzip.GzipFile):
    """Bytes that gzip has packed, up to `MOST_UNPACKED`: a small file may become a huge one."""

    def __init__(self, packed: BinaryIO, name: str) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._list = name

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        require_size(self.tell(), self._list)
        return data


def require_size(unpacked_bytes: int, name: str) -> None:
    """Refuse a packed list that would fill the memory. Raises CrawlerError."""
    if unpacked_bytes > MOST_UNPACKED:
        cause = f"it unpacks to more than {MOST_UNPACKED // 10**6:,} MB"
        raise no_list(name, cause, "if that is meant, unpack it (to .csv or .txt), and add that")


def unpacked(stream: BinaryIO, name: str) -> io.BufferedReader:
    """Return the bytes of a list, unpacked where they are compressed by gzip."""
    reader = _buffered(stream)
    packed = reader.peek(2).startswith(b"\x1f\x8b")
    return _buffered(cast("BinaryIO", _Unpacking(reader, name))) if packed else reader


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(cast("io.RawIOBase", stream), HEAD)


def kind_of(head: bytes, name: str, encoding: str | None) -> str:
    """Return what a file is by its first bytes. Raises CrawlerError for what can't be a list."""
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith(b"PK\x03\x04"):
        return WORKBOOK
    for mark, what, hint in _NO_LISTS:
        if head.startswith(mark):
            raise no_list(name, f"it is {what}", hint)
    if head.lstrip()[:20].lower().startswith(_PAGES):
        raise no_list(name, "it is a page of the web or XML", "download the list itself")
    if encoding is None and b"\0" in head and not _marked(head):
        wide = _wide(head)
        if wide is not None:
            raise _not_utf8(name, "there is a NUL byte beside each letter", wide)
        raise no_list(name, "there are NUL bytes in it: it is no text", "export it as CSV or text")
    return TEXT


@contextmanager
def decoded(reader: io.BufferedReader, encoding: str | None) -> Iterator[io.TextIOWrapper]:
    """Give a list as text: in the encoding of its byte order mark, else as told, else UTF-8."""
    text = io.TextIOWrapper(reader, _marked(reader.peek(4)) or encoding or "utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # the bytes are closed by whom they belong to


def wrong_encoding(
    name: str, error: LookupError | UnicodeError, encoding: str | None
) -> CrawlerError:
    """Return the error for bytes that are no text of the encoding, with the likely one."""
    if not isinstance(error, UnicodeDecodeError):
        return no_list(name, str(error), "name another encoding: --encoding")
    around = error.object[max(0, error.start - 10) : error.start].decode("utf-8", "replace")
    cause = f"byte 0x{error.object[error.start]:02x} after {around!r} is no {encoding or 'UTF-8'}"
    return _not_utf8(name, cause, likely_encoding(error.object))


def likely_encoding(data: bytes) -> str | None:
    """Return the encoding that some bytes are likely to be in, beside UTF-8; None if none is."""
    found = [match.encoding for match in from_bytes(data[:HEAD], cp_isolation=_ENCODINGS)]
    european = not found or found[0] in _EUROPEAN or "cp1252" in found
    if european and _is_western(data[:HEAD].decode("cp1252", "replace")):
        return "cp1252"
    return found[0] if found else None


def no_list(name: str, cause: str, hint: str) -> CrawlerError:
    """Return the error for a file that can't be read as a list; it may quote what stands there."""
    return CrawlerError(f"{name} can't be read{NOTHING_ADDED}", cause[:MOST_SAID], hint, Exit.USAGE)


def _is_western(text: str) -> bool:
    return all(char.isascii() or char.isalpha() or char in _WESTERN for char in text)


def _marked(head: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def _wide(head: bytes) -> str | None:
    """Return which UTF-16 without a mark this is likely to be: letters have one byte that is 0."""
    half = len(head) // 2
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if half and zeros.count(0) > half * 0.7:
            return encoding
    return None


def _not_utf8(name: str, cause: str, likely: str | None) -> CrawlerError:
    hint = "name its encoding, for example --encoding cp1252, or save it as UTF-8"
    if likely:
        hint = f"it is likely to be in {likely}: --encoding {likely}"
    return no_list(name, cause, hint)
