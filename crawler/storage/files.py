"""What lies where a database is to be opened, decided before SQLite touches any of it.

A database is several files: itself, `-wal` (what has been committed since the last checkpoint),
`-shm`, perhaps a `-journal`, and our `-lock`. SQLite trusts that they belong together; people move,
copy and restore them one by one. What each situation means is a table in docs/reliability.md.

Rule: nothing here writes, and nothing here asks SQLite.
"""

import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from crawler.errors import CrawlerError, Exit, quoted

NETWORK_FILE_SYSTEMS = frozenset(
    "9p acfs afs beegfs ceph cifs coda davfs fhgfs fuse.davfs fuse.davfs2 fuse.gcsfuse"
    " fuse.glusterfs fuse.goofys fuse.grpcfuse fuse.juicefs fuse.osxfs fuse.portal fuse.rclone"
    " fuse.s3fs fuse.sshfs fuse.vmhgfs-fuse glusterfs gpfs lustre ncpfs nfs nfs4 orangefs panfs"
    " prl_fs pvfs2 smb3 smbfs vboxsf virtiofs vmhgfs".split()
)
"""Where the shared memory of a write-ahead log is not shared by all who may open the file."""

JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
PAGE_SIZES = frozenset(2**power for power in range(9, 17))
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_WAL_HEADER = 32
_FRAME_HEADER = 24
_MOST_LOOKS = 5


def look(path: Path, *, to_write: bool) -> None:
    """Refuse what SQLite would damage, mix up or follow elsewhere. Raises CrawlerError.

    Args:
        path: the database; it need not be there.
        to_write: whether it is opened for a change.

    """
    real = path.resolve()
    _require_plain(real)
    _require_no_super_journal(real)
    if to_write:
        _require_local(path, real)
        _require_one_name(path, real)
    _require_own_log(path, real)


def is_immutable(path: Path) -> bool:
    """Tell whether a file is whole by itself, in a place that nobody can change.

    SQLite can read a file in WAL mode there only if it is told that nobody writes.
    """
    real = path.resolve()
    return not os.access(real.parent, os.W_OK) and is_alone(real)


def is_alone(path: Path) -> bool:
    """Tell whether nothing that was committed lies beside a file: who was killed leaves its log."""
    return _size(beside(path.resolve(), "wal")) == 0


def beside(path: Path, suffix: str) -> Path:
    """Return the path of one of the files of a database."""
    return path.with_name(f"{path.name}-{suffix}")


def _require_plain(real: Path) -> None:
    for suffix in ("wal", "shm", "journal", "lock"):
        other = beside(real, suffix)
        try:
            found = other.lstat()
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1):
            raise _refused(
                other,
                "it is a link: what is written to it would be written to another file",
                "don't trust this folder; or remove the link, if it is yours",
            )


def _require_no_super_journal(real: Path) -> None:
    journal = beside(real, "journal")
    if _size(journal) and _read(journal, -8, 8) == JOURNAL_MAGIC:
        raise _refused(
            journal,
            "it names another file, which SQLite would delete",
            "don't trust this folder; if the journal is yours, open the file with sqlite3 first",
        )


# One file, one name, one place


def _require_local(path: Path, real: Path) -> None:
    kind = _file_system(real)
    if kind in NETWORK_FILE_SYSTEMS:
        where = "" if real == path.absolute() else f" (at {real})"
        raise CrawlerError(
            f"{path} can't be used",
            f"it is on a network file system ({kind}){where}, where SQLite's WAL may be corrupted",
            "put the database on a local disk: --db PATH",
            Exit.DATABASE,
        )


def _require_one_name(path: Path, real: Path) -> None:
    """Refuse a file that others may open under another name, with another log and another lock."""
    try:
        names = real.stat().st_nlink
    except OSError:
        return
    if names > 1 and real.is_file():
        raise _refused(
            path,
            f"the file has {names} names (hard links): who opens another one can't see this log",
            f"keep one of them; for a copy: cp {quoted(real)} NEW && mv NEW {quoted(real)}",
        )
    if str(real) in {mount.point for mount in _mounts()}:
        raise _refused(
            path,
            "the file alone is mounted here: who opens it elsewhere can't see this log",
            f"mount the folder that it is in, not the file ({real})",
        )


class _Mount(NamedTuple):
    device: str
    point: str
    kind: str


def _mounts() -> Iterator[_Mount]:
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return
    for line in lines.splitlines():
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        yield _Mount(fields[2], point, source.split(" ")[0])


def _file_system(real: Path) -> str | None:
    """Return the type of the file system that a file is on, where the system tells."""
    try:
        device = (real if real.exists() else real.parent).stat().st_dev
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    inside, by_device = "", None
    found = None
    for mount in _mounts():
        by_device = mount.kind if mount.device == wanted else by_device
        root = mount.point.rstrip("/")
        if len(root) >= len(inside) and (str(real) == root or str(real).startswith(f"{root}/")):
            inside, found = root, mount.kind
    return by_device or found


# Whether a log belongs to the file


class _Log(NamedTuple):
    """What the committed frames of a write-ahead log say of the file that it was written for."""

    page_bytes: int
    pages: int
    """Of the database, with them."""
    written: frozenset[int]
    """The numbers of the pages that they hold."""
    counters: tuple[int, ...]
    """Of the changes to the file: those of the first page, in the order of the frames."""


def _require_own_log(path: Path, real: Path) -> None:
    wal = beside(real, "wal")
    if not _size(wal):
        return
    if not _size(real) and _frames(wal) and _frames(wal, checked=True):
        raise _refused(
            path,
            f"{wal} holds answers of a crawl that was moved away",
            "if the moved file NEW has not been opened since, move it along:"
            f" mv {quoted(wal)} NEW-wal; else name another file with --db",
        )
    for _ in range(_MOST_LOOKS):
        before = _state(real), _state(wal), _read(wal, 0, _WAL_HEADER)
        if not _stranger(real, _frames(wal)):
            return
        # Only what its checksums confirm is in a log: the rest was torn when the power went.
        stranger = _stranger(real, _frames(wal, checked=True))
        if not stranger:
            return
        # Who is at work may have changed them while they were looked at.
        if before == (_state(real), _state(wal), _read(wal, 0, _WAL_HEADER)):
            raise _refused(
                path,
                f"{wal} was written for another file than this one ({stranger})",
                "put that file back; or, to go on with this one:"
                f" mv {quoted(wal)} {quoted(f'{wal}.old')}",
            )


def _stranger(real: Path, log: _Log | None) -> str:
    """Return what shows that a log belongs to another file; empty where nothing does.

    A log holds all pages that its file lacks. The first page counts the lives of the file: the log
    begins where the file ends, or the file has got some of the log already.
    """
    header = _read(real, 0, 100)
    if log is None or not header.startswith(b"SQLite format 3\0"):
        return ""
    page_bytes = int.from_bytes(header[16:18])
    page_bytes = max(PAGE_SIZES) if page_bytes == 1 else page_bytes  # as SQLite writes that one
    if page_bytes not in PAGE_SIZES:
        return ""  # it is damaged, which SQLite tells
    if page_bytes != log.page_bytes:
        return f"its pages have {log.page_bytes} bytes, those of the file {page_bytes}"
    pages = _size(real) // page_bytes
    missing = next((n for n in range(pages + 1, log.pages + 1) if n not in log.written), None)
    if missing:
        return f"page {missing} is in neither"
    counter = int.from_bytes(header[24:28])
    if log.counters and counter not in (*log.counters, log.counters[0] - 1):
        return f"it goes on from change {log.counters[0]}, the file is at {counter}"
    return ""


def _frames(wal: Path, *, checked: bool = False) -> _Log | None:
    """Read what has been committed to a log; None where that is nothing.

    ``checked``: as far as its checksums are right, which takes some 14 ms for each MB.
    """
    try:
        with wal.open("rb") as file:
            return _committed(file, checked=checked)
    except OSError:
        return None


def _committed(file: BinaryIO, *, checked: bool) -> _Log | None:
    header = file.read(_WAL_HEADER)
    page_bytes, salts = int.from_bytes(header[8:12]), header[16:24]
    known = len(header) == _WAL_HEADER and int.from_bytes(header[:4]) in _WAL_MAGIC
    if not known or page_bytes not in PAGE_SIZES:
        return None
    committed: tuple[int, int] | None = None
    written, counters = set[int](), list[int]()
    order: Literal["little", "big"] = "big" if header[3] & 1 else "little"
    sums = _checksums(header[:24], order, (0, 0))
    if checked and _sums_in(header[24:]) != sums:
        return None
    while len(frame := file.read(_FRAME_HEADER)) == _FRAME_HEADER and frame[8:16] == salts:
        number, pages = int.from_bytes(frame[:4]), int.from_bytes(frame[4:8])
        page = b""
        if checked or number == 1:
            page = file.read(page_bytes)
        else:
            file.seek(page_bytes, os.SEEK_CUR)
        if checked:
            sums = _checksums(frame[:8] + page, order, sums)
            if _sums_in(frame[16:]) != sums:
                break
        written.add(number)
        if number == 1:
            counters.append(int.from_bytes(page[24:28]))
        if pages:
            committed = pages, len(counters)
    if committed is None:
        return None
    return _Log(page_bytes, committed[0], frozenset(written), tuple(counters[: committed[1]]))


def _checksums(
    data: bytes, order: Literal["little", "big"], sums: tuple[int, int]
) -> tuple[int, int]:
    """Return the checksums of a log, gone on with (sqlite.org/fileformat.html, 4.2)."""
    first, second = sums
    words = struct.unpack(f"{'<' if order == 'little' else '>'}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def _sums_in(stored: bytes) -> tuple[int, int]:
    return int.from_bytes(stored[:4]), int.from_bytes(stored[4:8])


# Files, read as they are


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _size(path: Path) -> int:
    """Return how long a plain file is; 0 where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _read(path: Path, start: int, size: int) -> bytes:
    """Return some bytes of a file, from its end where the start is below 0."""
    try:
        with path.open("rb") as file:
            file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
            return file.read(size)
    except OSError:
        return b""


def _refused(path: Path, cause: str, hint: str) -> CrawlerError:
    return CrawlerError(f"{path} can't be used", cause, hint, Exit.CONFIGURATION)
