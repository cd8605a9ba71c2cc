"""The protocol library costs half a second to load."""

import subprocess
import sys

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
