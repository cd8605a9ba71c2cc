"""A call of many records is signed beside the event loop."""

import threading

from outbound_rig import CLOCK, market

from bridge.lane import RenderedItem
from bridge.market.prepare import signed
from bridge.model import Operation
from bridge.turns import LARGE_BYTES


async def test_only_a_large_call_leaves_the_loop(tmp_path, monkeypatch):
    """A few milliseconds of work would make everybody wait; for a single record the way to a thread would be the longer one."""
    async with market(tmp_path) as rig:
        maker, threads = rig.outbound._maker, []
        create = maker.create

        def noted(*args, **named):
            threads.append(threading.current_thread())
            return create(*args, **named)

        monkeypatch.setattr(maker, "create", noted)
        small = [RenderedItem(b'{"assetReference":"A"}')]
        large = [RenderedItem(b'{"assetReference":"%04d"}' % number) for number in range(LARGE_BYTES // 20)]
        calls = [
            await signed(maker, Operation.ASSET_CREATE, items, submission="s", stamps={"received": CLOCK.now()})
            for items in (small, large)
        ]
        assert threads[0] is threading.main_thread()
        assert threads[1] is not threading.main_thread()
        assert b'"0818"' in calls[1].body
        assert calls[1].stamps["received"]
        assert calls[1].stamps["signed"]
