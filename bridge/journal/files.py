"""Files that must survive a power cut: written beside their place, synced, renamed into it, and the directory synced.

What root makes beside a journal belongs to the directory's owner, as with SQLite's own files: a command of root's leaves nothing that the service cannot open.
"""

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)  # a FAT stick, some shares
_CHUNK_BYTES: Final = 1 << 20


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace the file at `path`: whoever reads it, at whatever moment, finds the old content or the new one. Raises `OSError`."""
    make_directory(path.parent)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # of a try that was cut off
    with os.fdopen(make_file(beside, mode=mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_directory(path.parent)


def name_anew(made: Path, path: Path) -> None:
    """Give the file `made` the new name `path`, on disk when this returns. Raises `FileExistsError` rather than replace another file, and `OSError`."""
    try:
        os.link(made, path)  # unlike a rename it never replaces a file
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        made.rename(path)
    else:
        made.unlink()
    sync_directory(path.absolute().parent)


def make_file(path: Path, *, mode: int = 0o600) -> int:
    """The handle of a new file, for reading and writing. Raises `OSError`: `FileExistsError` for one that is there, whatever it leads to."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _belong(handle, path.parent)
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_lock(path: Path) -> int:
    """The handle of a lock file, made when it is not there. Raises `OSError`."""
    try:
        return make_file(path)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def make_directory(path: Path) -> None:
    """Make it, for its owner alone, and what is missing above it, so that a power cut does not take them away again. Raises `OSError`."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for made in reversed(missing):
        try:
            made.mkdir(mode=0o700 if made == path else 0o777)
        except FileExistsError:  # by another process, just now
            continue
        handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _belong(handle, made.parent)
        finally:
            os.close(handle)
        sync_directory(made.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _belong(handle: int, directory: Path) -> None:
    if os.geteuid() == 0:
        owner = directory.stat()
        with suppress(
            PermissionError
        ):  # a root that may not give away, in a container or under a filter of system calls
            os.fchown(handle, owner.st_uid, owner.st_gid)


def sync_file(path: Path) -> None:
    """What was written to this file is on disk when this returns."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """The names in this directory are on disk when this returns."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.digest()


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
