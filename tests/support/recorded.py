"""What a session tells of its rhythm, kept for a test to look at."""

import asyncio

from bridge.api import Intervals


class Recorded(Intervals):
    """Every word, in order."""

    def __init__(self):
        self.said = {}
        self.spacings = {}

    def agreed(self, name, *, configured_s, revised_s=None):
        self.said[name] = (configured_s, revised_s)

    def achieved(self, name, seconds):
        self.spacings.setdefault(name, []).append(seconds)

    async def until(self, name, count, within_s=10):
        """The spacings under this name, once there are so many."""
        async with asyncio.timeout(within_s):
            while len(self.spacings.get(name, ())) < count:
                await asyncio.sleep(0.01)
        return self.spacings[name]
