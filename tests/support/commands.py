"""Commands of `smp-bridge` as processes of their own that need not import everything anew (forked.py)."""

import asyncio
import os
from collections.abc import Mapping

from forked import forked


async def command(*arguments: object, environment: Mapping[str, str], within_s: float = 60) -> tuple[int, str, str]:
    """Run `smp-bridge` with these arguments and these variables more, to its end: exit status, what it printed, what it complained of."""
    async with asyncio.timeout(within_s):
        process = await forked(*arguments, environment={**os.environ, **environment})
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
