"""The protocol library: it costs half a second to load, and its reader of lists is bounded."""

import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from opcua_site import options_of, read_site

from adapters.opcua.library import ua, unpack
from adapters.opcua.link import Link
from bridge.clock import SystemClock

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


async def test_a_write_carries_the_value_alone():
    """No status and no time: many servers refuse a write that brings them (node-opcua takes both, so it cannot show this)."""
    sent = []

    class Session:
        async def write(self, parameters):
            sent.extend(parameters.NodesToWrite)
            return [ua.StatusCode(0)]

    options = options_of(read_site(), url="opc.tcp://127.0.0.1:1", security={"policy": "None"})
    link = Link(options, SystemClock.here())
    link._client = SimpleNamespace(uaclient=SimpleNamespace(session=Session()))
    assert await link.write([(ua.NodeId("State", 2), ua.Variant(3, ua.VariantType.Int32))]) == [0]
    (write,) = sent
    value = bytes([6, 3, 0, 0, 0])
    assert (
        ua.ua_binary.struct_to_binary(write.Value) == bytes([1]) + value
    )  # the mask of OPC 10000-6, 5.2.2.17: a value and nothing else


def test_a_list_of_nothing_takes_no_memory():
    """Its elements take no bytes, so that its length is held by nothing: two thousand million of them would end the process."""
    body = bytes([0x80]) + struct.pack("<i", 2**31 - 1)
    with pytest.raises(ua.UaError, match="a list of nothing"):
        unpack(24, ua.utils.Buffer(body))
    assert unpack(24, ua.utils.Buffer(bytes([0x80]) + struct.pack("<i", 0))).Value == []
    assert unpack(24, ua.utils.Buffer(b"\0")).Value is None
