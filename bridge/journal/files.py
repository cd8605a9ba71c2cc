"""Files that must survive a power cut: written beside their place, synced, renamed into it, and the directory synced."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Final

NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)  # a FAT stick, some shares
_CHUNK_BYTES: Final = 1 << 20


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace the file at `path`: whoever reads it, at whatever moment, finds the old content or the new one. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
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
