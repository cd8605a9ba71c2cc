"""A disk that fails on command: SQLite's own way to the disk, with some verbs of some files refused."""

import itertools
from pathlib import Path

import apsw

_NUMBERS = itertools.count(1)
READ, WRITE, SYNC = apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_FSYNC
FULL = apsw.SQLITE_FULL


class FailingVfs(apsw.VFS):
    """`fail` names what is refused from now on, by the end of a file's name: `{("-wal", "sync"): SYNC}`; `times` after which it is well again (None: never)."""

    def __init__(self, *, default=False):
        self.name = f"failing-{next(_NUMBERS)}"
        self.failing = {}
        self.failed = []
        self._base = apsw.vfs_names()[0]
        super().__init__(self.name, self._base, makedefault=default)

    def fail(self, file, verb, code, times=None):
        self.failing[file, verb] = [code, times]

    def heal(self):
        self.failing.clear()

    def check(self, file, verb):
        for (end, failing), rule in self.failing.items():
            if failing == verb and file.endswith(end) and rule[1] != 0:
                rule[1] = None if rule[1] is None else rule[1] - 1
                self.failed.append((file, verb))
                raise apsw.exception_for(rule[0])

    def xOpen(self, name, flags):
        if name is None:
            return super().xOpen(name, flags)
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, vfs, name, flags):
        super().__init__(vfs._base, name, flags)
        self._vfs = vfs
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name

    def xRead(self, amount, offset):
        self._vfs.check(self._name, "read")
        return super().xRead(amount, offset)

    def xWrite(self, data, offset):
        self._vfs.check(self._name, "write")
        super().xWrite(data, offset)

    def xSync(self, flags):
        self._vfs.check(self._name, "sync")
        super().xSync(flags)


class CommandedVfs(FailingVfs):
    """The default of its process; each line of the command file (`-wal sync`) is refused for as long as it stands there."""

    _CODES = {"read": READ, "write": WRITE, "sync": SYNC}

    def __init__(self, commands):
        super().__init__(default=True)
        self._commands = Path(commands)

    def check(self, file, verb):
        if not self._commands.exists():
            return
        for line in self._commands.read_text().splitlines():
            end, refused = line.split()
            if refused == verb and file.endswith(end):
                raise apsw.exception_for(self._CODES[verb])
