"""The protocol library: it costs half a second to load, and its reader of lists is bounded."""

import struct
import subprocess
import sys

import pytest

from adapters.opcua.library import ua, unpack

CODE = """
import asyncio, sys, threading
from adapters.opcua import ADAPTER

class Noting:
    def find_spec(self, name, path=None, target=None):
        if name == "asyncua":
            threads.append(threading.current_thread() is threading.main_thread())

async def main():
    try:
        async with ADAPTER.open(None):
            pass
    except AttributeError:  # there is no site
        pass

threads = []
sys.meta_path.insert(0, Noting())
asyncio.run(main())
assert threads == [False], threads
"""


def test_the_library_is_loaded_beside_the_event_loop():
    """When the first session opens, in a thread, so that the records of other sites do not wait for it."""
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_a_list_of_nothing_takes_no_memory():
    """Its elements take no bytes, so that its length is held by nothing: two thousand million of them would end the process."""
    body = bytes([0x80]) + struct.pack("<i", 2**31 - 1)
    with pytest.raises(ua.UaError, match="a list of nothing"):
        unpack(24, ua.utils.Buffer(body))
    assert unpack(24, ua.utils.Buffer(bytes([0x80]) + struct.pack("<i", 0))).Value == []
    assert unpack(24, ua.utils.Buffer(b"\0")).Value is None
