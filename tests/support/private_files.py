"""Files as an operator should leave them."""

from pathlib import Path


def write_private_file(path: Path, content: bytes | str) -> Path:
    """A file of a key or a secret: its owner's alone from the first moment on, or the host would not start with it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
