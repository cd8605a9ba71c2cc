"""Trouble is independent: what happens to one SMP account is not felt by another participant of the same host."""

import pytest
from neighbours import Form, in_turns, neighbours

FORM = Form(pairs=5, seconds=4.0, rate=40, share=0.2, plus_ms=2)


@pytest.mark.long
async def test_smp_of_another_is_silent(tmp_path, table):
    """The other participant's SMP takes connections and never answers, while its records go on coming and wait: the p99 of the healthy one holds."""
    async with neighbours(tmp_path) as made:
        waiting = []

        async def begin():
            made.proxy.set(blackhole=True)
            waiting.append(made.ask("east", rate=10, seconds=FORM.seconds, burst=1))

        async def end(counted):
            made.proxy.clear()
            rows = await made.until_told(waiting[-1])
            creates = await made.other_creates()
            counted.add(rows, lambda reference: creates.get(reference, 0))

        await in_turns(made, FORM, "another's SMP is silent, its records wait", begin=begin, end=end, table=table)
