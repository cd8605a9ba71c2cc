"""A disk that can lose its power: everything that SQLite writes is recorded, and any moment can be brought back as a power cut would have left it.

What is modelled, for the files that SQLite opens by name (the journal, its `-wal`, a rollback `-journal`):

- A write or a truncation is in the machine's memory until the next sync of *that* file. At a cut everything synced is there; of the rest any part may be:
  each write and truncation by itself, and of a write any of its 512-byte sectors. What was never written and lies before what was is read as zeros.
- Bytes of a sector outside the written range never change (SQLite relies on that where the device says so, and Linux's file systems keep it).
- A file's name is on disk once its directory was synced. SQLite does so at the first sync of a log or rollback journal it has opened, and when it
  deletes a file and asks for it. Creations and deletions since then survive in their order up to some point, as journalling file systems keep them.
- `-shm` is never on disk: SQLite makes it anew, and it is not opened by name. Lock files and sockets say nothing that must survive.
- The disk keeps what it said it had synced, and reading gives what is there: a lying disk is another fault.
"""

import enum
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Lock

import apsw

SECTOR = 512
_LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_NUMBERS = itertools.count(1)


class Kind(enum.Enum):
    """What was done to a file."""

    OPEN = "open"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing done to the file `name` (bytes at `offset`; a truncation to `size`). `directory` when it also synced the directory."""

    kind: Kind
    name: str
    offset: int = 0
    data: bytes = b""
    size: int = 0
    directory: bool = False


class Recorder:
    """The operations of one directory in order, and the files as they were when it began."""

    def __init__(self, directory: Path) -> None:
        self.before = {
            entry.name: entry.read_bytes() for entry in directory.iterdir() if entry.is_file() and _is_ours(entry.name)
        }
        self.operations: list[Operation] = []
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.operations)

    def add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def syncs(self) -> list[int]:
        """The moments right after each sync, as numbers of operations."""
        return [number for number, made in enumerate(self.operations, 1) if made.kind is Kind.SYNC]


def _is_ours(name: str) -> bool:
    return name.endswith((".db", "-wal", "-journal", ".new"))


class RecordingVfs(apsw.VFS):
    """SQLite's own way to the disk, recorded. `name` is what connections ask for; `unregister()` when done."""

    def __init__(self, recorder: Recorder) -> None:
        self.name = f"recording-{next(_NUMBERS)}"
        self.recorder = recorder
        super().__init__(self.name, "")

    def xOpen(self, name, flags):
        if name is None:  # a temporary file of one statement: nothing of it must survive
            return super().xOpen(name, flags)
        return _File(self.recorder, name, flags)

    def xDelete(self, name, sync):
        super().xDelete(name, sync)
        self.recorder.add(Operation(kind=Kind.DELETE, name=Path(name).name, directory=bool(sync)))


class _File(apsw.VFSFile):
    def __init__(self, recorder, name, flags):
        super().__init__("", name, flags)
        self._recorder = recorder
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        self._new_log = bool(flags[0] & _LOGS and flags[0] & apsw.SQLITE_OPEN_CREATE)
        recorder.add(Operation(kind=Kind.OPEN, name=self._name))

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self._recorder.add(Operation(kind=Kind.WRITE, name=self._name, offset=offset, data=bytes(data)))

    def xTruncate(self, size):
        super().xTruncate(size)
        self._recorder.add(Operation(kind=Kind.TRUNCATE, name=self._name, size=size))

    def xSync(self, flags):
        super().xSync(flags)
        self._recorder.add(Operation(kind=Kind.SYNC, name=self._name, directory=self._new_log))
        self._new_log = False


# ------------------------------------------------------------------------------------------------------ bringing back


@dataclass(slots=True)
class _Inode:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)


class Disk:
    """The disk at a moment that moves on: `advance` to a number of operations, then ask what a cut there could leave."""

    def __init__(self, recorder: Recorder) -> None:
        self._operations = recorder.operations
        self._at = 0
        self._inodes = [_Inode(bytearray(data)) for data in recorder.before.values()]
        # Names as they are seen, names as they are on disk, and the changes in between: (name, inode or None).
        self._names = {name: number for number, name in enumerate(recorder.before)}
        self._durable = dict(self._names)
        self._changes: list[tuple[str, int | None]] = []

    def advance(self, to: int) -> None:
        for operation in self._operations[self._at : to]:
            self._apply(operation)
        self._at = max(self._at, to)

    def _apply(self, operation: Operation) -> None:
        name = operation.name
        if operation.kind is Kind.DELETE:
            self._names.pop(name, None)
            self._changes.append((name, None))
        elif name not in self._names:
            self._inodes.append(_Inode())
            self._names[name] = len(self._inodes) - 1
            self._changes.append((name, self._names[name]))
        if operation.kind in {Kind.WRITE, Kind.TRUNCATE}:
            self._inodes[self._names[name]].pending.append(operation)
        elif operation.kind is Kind.SYNC:
            inode = self._inodes[self._names[name]]
            for pending in inode.pending:
                _do(inode.synced, pending)
            inode.pending.clear()
        if operation.directory:
            self._durable = dict(self._names)
            self._changes.clear()

    def only_synced(self) -> dict[str, bytes]:
        """A cut that takes everything that was not synced."""
        return {name: bytes(self._inodes[number].synced) for name, number in self._durable.items()}

    def everything(self) -> dict[str, bytes]:
        """A cut right after the machine happened to write everything down."""
        return {name: self._content(number, lambda data: data) for name, number in self._names.items()}

    def some(self, random: Random) -> dict[str, bytes]:
        """A cut that leaves any part of what was not synced, down to single sectors."""
        names = dict(self._durable)
        for name, number in self._changes[: random.randint(0, len(self._changes))]:
            if number is None:
                names.pop(name, None)
            else:
                names[name] = number
        share = random.choice((0.1, 0.5, 0.9))
        return {name: self._content(number, lambda one: _torn(one, random, share)) for name, number in names.items()}

    @property
    def uncertain(self) -> int:
        """How many operations a cut here may or may not take."""
        return sum(len(inode.pending) for inode in self._inodes) + len(self._changes)

    def _content(self, number, choose) -> bytes:
        content = bytearray(self._inodes[number].synced)
        for operation in self._inodes[number].pending:
            for kept in _as_list(choose(operation)):
                _do(content, kept)
        return bytes(content)


def _as_list(chosen):
    return chosen if isinstance(chosen, list) else [chosen]


def _torn(operation: Operation, random: Random, share: float) -> list[Operation]:
    """The sectors of a write that were written; a truncation happens or does not."""
    if random.random() < share / 2:
        return [operation]
    if operation.kind is Kind.TRUNCATE:
        return [operation] if random.random() < share else []
    kept, start = [], operation.offset
    end = operation.offset + len(operation.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if random.random() < share:
            data = operation.data[start - operation.offset : stop - operation.offset]
            kept.append(Operation(kind=Kind.WRITE, name=operation.name, offset=start, data=data))
        start = stop
    return kept


def _do(content: bytearray, operation: Operation) -> None:
    if operation.kind is Kind.TRUNCATE:
        del content[operation.size :]
        content.extend(bytes(operation.size - len(content)))
        return
    end = operation.offset + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[operation.offset : end] = operation.data


def materialise(files: dict[str, bytes], directory: Path) -> None:
    """Write the files of a cut into an empty directory."""
    directory.mkdir(parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
