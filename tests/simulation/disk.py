"""A disk that fails or loses power, below the SQLite that this interpreter uses.

Rule: the program under test is not changed, and neither are Python's sqlite3 and aiosqlite. The
library that they have loaded is given another default VFS: the system's own, whose methods are
asked here first.
"""

import _sqlite3
import ctypes
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

OK = 0
FULL, CANTOPEN = 13, 14
IOERR_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE = 266, 778, 1034, 1546
IOERR_DELETE, IOERR_NOMEM = 2570, 3082
KINDS = ("open", "read", "write", "truncate", "sync", "delete")
MEMORY = "/dev/shm"  # nosec B108: see fast_folder
ROOM = 2**30
"""Bytes that have to be free there; a container may have less than the tests need."""
SECTOR = 512
"""What a disk writes as a whole."""

_POINTER = ctypes.c_void_p
_METHODS = (
    "close read write truncate sync file_size lock unlock check_reserved_lock file_control"
    " sector_size device_characteristics shm_map shm_lock shm_barrier shm_unmap fetch unfetch"
).split()
_VFS_METHODS = (
    "open delete access full_pathname dl_open dl_error dl_sym dl_close randomness sleep"
    " current_time get_last_error current_time_int64 set_system_call get_system_call"
    " next_system_call"
).split()


class _FileMethods(ctypes.Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = [("version", ctypes.c_int), *((name, _POINTER) for name in _METHODS)]


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", _POINTER),
        ("name", ctypes.c_char_p),
        ("app_data", _POINTER),
        *((name, _POINTER) for name in _VFS_METHODS),
    ]


_INT, _INT64 = ctypes.c_int, ctypes.c_int64
_SIGNATURES = {
    "open": ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER),
    "delete": ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_char_p, _INT),
    "close": ctypes.CFUNCTYPE(_INT, _POINTER),
    "read": ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT64),
    "write": ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT64),
    "truncate": ctypes.CFUNCTYPE(_INT, _POINTER, _INT64),
    "sync": ctypes.CFUNCTYPE(_INT, _POINTER, _INT),
}
_FOR_EVER: list[object] = []
"""What the library calls until the interpreter is gone."""


class Operation(NamedTuple):
    """What SQLite asked of the disk, in the order in which it did, and what was noted between."""

    kind: str
    """Of KINDS, or what `Disk.note` was given."""
    name: str = ""
    """Of the file, without its folder."""
    at: int = 0
    """Offset of a write, new size, whether a delete syncs the directory; the number of a note."""
    data: bytes = b""


@dataclass
class Fault:
    """The n-th operation of a kind fails, and if so wished all that follow it."""

    kind: str
    nth: int
    code: int
    for_ever: bool
    seen: int = 0
    fired: int = 0

    def strikes(self, kind: str) -> int:
        """Return the code with which an operation fails; OK if it does not."""
        if kind != self.kind:
            return OK
        self.seen += 1
        if self.seen == self.nth or (self.for_ever and self.seen > self.nth):
            self.fired += 1
            return self.code
        return OK


class Disk:
    """Below all connections that this process opens from now on. Make one, once.

    Raises OSError where the interpreter's SQLite can't be reached.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.operations: list[Operation] | None = None
        """Put a list here, and what changes the disk is written down."""
        library = _library()
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._system = library.sqlite3_vfs_find(None).contents
        self._tables: dict[int, _FileMethods] = {}
        self._names: dict[int, str] = {}  # of open files, by their address
        vfs = _Vfs.from_buffer_copy(self._system)
        vfs.next, vfs.name = None, b"faulty-disk"
        self._open_file = _SIGNATURES["open"](self._system.open)
        self._delete_file = _SIGNATURES["delete"](self._system.delete)
        vfs.open = self._callback("open", self._open)
        vfs.delete = self._callback("delete", self._delete)
        _FOR_EVER.extend((self, vfs))
        if library.sqlite3_vfs_register(ctypes.byref(vfs), 1) != OK:
            raise OSError("SQLite takes no other VFS")

    def note(self, kind: str, number: int) -> None:
        """Write down, among the operations, that something has happened by now."""
        if self.operations is not None:
            self.operations.append(Operation(kind, at=number))

    def _asked(self, kind: str, name: str, at: int = 0, data: bytes = b"") -> int:
        code = self.fault.strikes(kind) if self.fault else OK
        if code == OK and kind != "read" and name and self.operations is not None:
            self.operations.append(Operation(kind, name, at, data))
        return code

    def _open(self, _vfs, path, file, flags, flags_out):
        name = Path(ctypes.string_at(path).decode()).name if path else ""
        methods = ctypes.cast(file, ctypes.POINTER(_POINTER))
        code = self._asked("open", name)
        if code != OK:
            methods[0] = None  # else SQLite would close it
            return code
        system = ctypes.addressof(self._system)
        code = self._open_file(system, path, file, flags, flags_out)
        if code == OK and methods[0]:
            self._names[file] = name
            methods[0] = ctypes.addressof(self._table(methods[0]))
        return code

    def _delete(self, _vfs, path, sync_directory):
        code = self._asked("delete", Path(path.decode()).name, sync_directory)
        if code != OK:
            return code
        return self._delete_file(ctypes.addressof(self._system), path, sync_directory)

    def _table(self, address: int) -> _FileMethods:
        """Return a copy of a table of methods in which ours are asked first."""
        if address not in self._tables:
            system = _FileMethods.from_address(address)
            table = _FileMethods()
            sizes = {1: _FileMethods.shm_map.offset, 2: _FileMethods.fetch.offset}
            size = sizes.get(system.version, ctypes.sizeof(_FileMethods))
            ctypes.memmove(ctypes.byref(table), address, size)
            table.version = min(system.version, 2)  # 3 maps files into memory, past us
            for kind, method in _file_methods(self, system).items():
                setattr(table, kind, self._callback(kind, method))
            self._tables[address] = table
        return self._tables[address]

    def _callback(self, kind: str, function: Callable[..., int]) -> int | None:
        callback = _SIGNATURES[kind](function)
        _FOR_EVER.append(callback)
        return ctypes.cast(callback, _POINTER).value


def fast_folder() -> str | None:
    """Return a file system in memory, where there is one with room; for folders of random names."""
    if not os.access(MEMORY, os.W_OK):
        return None
    free = os.statvfs(MEMORY)
    return MEMORY if free.f_bavail * free.f_frsize >= ROOM else None


def _file_methods(disk: Disk, system: _FileMethods) -> dict[str, Callable[..., int]]:
    """Return our methods of an open file, before those of the system."""
    ask, names = disk._asked, disk._names
    theirs = {
        kind: _SIGNATURES[kind](getattr(system, kind))
        for kind in ("close", "read", "write", "truncate", "sync")
    }

    def close(file):
        names.pop(file, None)
        return theirs["close"](file)

    def read(file, buffer, size, offset):
        return ask("read", names[file]) or theirs["read"](file, buffer, size, offset)

    def write(file, buffer, size, offset):
        data = ctypes.string_at(buffer, size)
        code = ask("write", names[file], offset, data)
        return code or theirs["write"](file, buffer, size, offset)

    def truncate(file, size):
        return ask("truncate", names[file], size) or theirs["truncate"](file, size)

    def sync(file, flags):
        return ask("sync", names[file]) or theirs["sync"](file, flags)

    return {"close": close, "read": read, "write": write, "truncate": truncate, "sync": sync}


def _library() -> ctypes.CDLL:
    """Return the library that Python's sqlite3 has loaded."""
    maps = Path("/proc/self/maps").read_text("utf-8") if Path("/proc/self/maps").exists() else ""
    shared = {line.split()[-1] for line in maps.splitlines() if "libsqlite3" in line}
    path = shared.pop() if len(shared) == 1 else _sqlite3.__file__
    library = ctypes.CDLL(path)
    try:
        library.sqlite3_libversion.restype = ctypes.c_char_p
        found = library.sqlite3_libversion().decode()
    except AttributeError:
        raise OSError(f"this Python hides its SQLite: {path} shows none of its functions") from None
    if found != sqlite3.sqlite_version:
        raise OSError(f"{path} is SQLite {found}, and Python uses {sqlite3.sqlite_version}")
    return library


def reachable() -> bool:
    """Tell whether a disk can be put below this interpreter's SQLite."""
    try:
        _library()
    except OSError:
        return False
    return True


@dataclass
class _File:
    """An inode: what a sync has brought to the disk, and what has been asked since."""

    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Operation] = field(default_factory=list)
    synced: bool = False


class AfterPowerCut:
    """What a disk may hold after the operations so far.

    A name is as durable as its directory: one that came or went since the directory was synced may
    be back as it was. SQLite syncs it with the first sync of a new journal or log, and with the
    deletes that ask for it. The index of the log (`-shm`) is no file that outlives the power.
    """

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._on_disk: dict[str, _File] = {}  # the directory, as of its last sync

    def apply(self, operation: Operation) -> None:
        """Go on by one operation."""
        name = operation.name
        match operation.kind:
            case "open":
                self._files.setdefault(name, _File())
            case "write" | "truncate":
                self._files[name].unsynced.append(operation)
            case "sync":
                self._sync(name)
            case "delete":
                self._files.pop(name, None)
                if operation.at:
                    self._on_disk = dict(self._files)

    def policies(self) -> tuple[str, ...]:
        """Return the ways in which what was not synced may have been lost."""
        files = [*self._files.values(), *self._on_disk.values()]
        if self._files == self._on_disk and not any(file.unsynced for file in files):
            return ("all",)
        return ("all", "none", "subset", "torn")

    def files(self, policy: str, chance: random.Random) -> dict[str, bytes]:
        """Return the files after a cut.

        all: nothing is lost (as by kill -9); none: all that was not synced; subset: some writes
        and names; torn: that, and some writes by the sector.
        """
        found = {}
        for name in sorted(self._files.keys() | self._on_disk.keys()):
            now, before = self._files.get(name), self._on_disk.get(name)
            file = now if now is before or _keeps(policy, chance) else before
            if file is not None:
                found[name] = _content(file, policy, chance)
        return found

    def _sync(self, name: str) -> None:
        file = self._files[name]
        for operation in file.unsynced:
            _apply(file.durable, operation.at, _change(operation))
        file.unsynced = []
        if not file.synced and name.endswith(("-wal", "-journal")):
            self._on_disk = dict(self._files)
        file.synced = True


def _keeps(policy: str, chance: random.Random) -> bool:
    return policy == "all" or (policy != "none" and chance.random() < 0.5)


def _content(file: _File, policy: str, chance: random.Random) -> bytes:
    image = bytearray(file.durable)
    for operation in file.unsynced:
        if not _keeps(policy, chance):
            continue
        if policy == "torn" and len(operation.data) > SECTOR:
            for at, sector in _sectors(operation):
                if _keeps(policy, chance):
                    _apply(image, at, sector)
        else:
            _apply(image, operation.at, _change(operation))
    return bytes(image)


def _sectors(write: Operation) -> Iterator[tuple[int, bytes]]:
    """Yield a write by the sectors of the disk."""
    start = 0
    while start < len(write.data):
        end = start + SECTOR - (write.at + start) % SECTOR
        yield write.at + start, write.data[start:end]
        start = end


def _change(operation: Operation) -> bytes | None:
    return None if operation.kind == "truncate" else operation.data


def _apply(image: bytearray, at: int, data: bytes | None) -> None:
    """Write at an offset, or (None) make the image end there."""
    end = at + len(data or b"")
    if len(image) < end:
        image.extend(bytes(end - len(image)))
    if data is None:
        del image[at:]
    else:
        image[at:end] = data
