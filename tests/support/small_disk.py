"""A disk of a few megabytes that a test may fill, empty and make read-only: a tmpfs of its own."""

import os
import subprocess
from contextlib import contextmanager

import pytest

_BLOCK = 4096


class SmallDisk:
    """A mounted directory; `fill` takes all the room that is left, `make_room` gives it back."""

    def __init__(self, directory):
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self):
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(_BLOCK))
            except OSError:
                return

    def make_room(self):
        self._filler.unlink()

    def remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.directory], check=True, capture_output=True)


@contextmanager
def small_disk(directory, size_mb):
    """Mount it at `directory`, which is made. Skips the test where this user may not mount."""
    directory.mkdir(parents=True)
    options = f"size={size_mb}m,mode=0755"
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command: a size-limited disk cannot be made here")
    if made.returncode:
        pytest.skip(f"a size-limited disk cannot be mounted here (user {os.geteuid()}): {made.stderr.strip()}")
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True, capture_output=True)
