"""The cable is pulled: no reset, no refusal, not a word. The service runs in a network namespace of our own, the EMS and SMP are behind cables."""

import asyncio
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from faulty_ems import IN_DOUBT, RECOVER_S, REGISTERED, Faulty, Modbus, Mqtt, NodeOpcUa, told
from faulty_smp import tls_server
from processes import market_side
from service import profile_content, write_profile
from veth import cables

from bridge.sandbox import Knobs
from bridge.testing.proxy import FaultProxy

pytestmark = pytest.mark.timeout(150)
QUICKLY = {"connect_s": 1, "answer_s": 2}


@asynccontextmanager
async def cabled(directory, kind, knobs):
    """The service as a process, one EMS behind `made.ems_wire`, SMP behind `made.smp_wire`. Results come by status polls alone."""
    made = Faulty(directory)
    made.listening = lambda _: None  # no way leads from SMP into the service's namespace
    async with AsyncExitStack() as stack:
        found = stack.enter_context(cables(2))
        made.ems_wire, made.smp_wire = found.wires
        made.prefix, made.listener, made.addresses = found.inside, made.ems_wire.listener, (made.ems_wire.host,)
        await market_side(made, stack, directory, profile="default", knobs=knobs)
        write_profile(made.config / "profile.yaml", profile_content("default", transport=QUICKLY))
        trust = ssl.create_default_context(cadata=made.sandbox.ca_pem.decode())
        smp = FaultProxy(
            "127.0.0.1",
            int(made.sandbox.base_url.rpartition(":")[2]),
            server_tls=tls_server(made.sandbox.authority, made.smp_wire.host),
            client_tls=trust,
            listener=made.smp_wire.listener,
        )
        await stack.enter_async_context(smp)
        made.environment["SMP_BRIDGE_SMP_URL"] = f"https://{smp.host}:{smp.port}"
        made.link = kind()
        await made.link.begin(made, stack, directory)
        made.group = group = await stack.enter_async_context(asyncio.TaskGroup())
        beside = [group.create_task(made.link.beat())] if kind is Modbus else []
        made.process = await made.run()
        try:
            await made.process.until("link_open", within_s=30)
            yield made
        except BaseException as error:
            error.add_note(await told(made))
            error.add_note(f"{made.process.events[-12:]}"[:6000])
            raise
        finally:
            for task in (*beside, getattr(made.link, "shaking", None)):
                if task is not None:
                    task.cancel()
            await made.process.stop()


async def said(process, event, already, within_s):
    """Wait until the service has logged this once more than `already` times."""
    async with asyncio.timeout(within_s):
        while sum(entry["event"] == event for entry in process.events) <= already:
            process.changed.clear()
            await process.changed.wait()


@pytest.mark.parametrize(
    "kind", [Modbus, pytest.param(NodeOpcUa, marks=pytest.mark.long), pytest.param(Mqtt, marks=pytest.mark.long)]
)
async def test_the_cable_to_an_ems_is_pulled(tmp_path, table, kind):
    """Noticed within the link's time; what SMP decided meanwhile is told within 10 s of the cable's return, and what was asked meanwhile is registered."""
    async with cabled(tmp_path, kind, Knobs(returns="hold")) as made:
        link = made.link
        before = await link.ask()
        await link.until([before], "sent")
        await link.calm()
        made.ems_wire.down()
        pulled = time.monotonic()
        await said(made.process, "link_lost", 0, link.noticed_s)
        noticed_s = time.monotonic() - pulled
        during = await link.ask()
        made.sandbox.knobs.returns = "push"
        await made.sandbox.release()
        await asyncio.sleep(3)  # the tries come slowly by now
        assert await link.word(before) == "sent"
        made.ems_wire.up()
        recovery_s = await link.until([before, during], REGISTERED, within_s=3 * RECOVER_S)
        table.add(await link.row(f"cable pulled, noticed after {noticed_s:.1f} s", recovery_s=recovery_s))


async def test_the_cable_to_smp_is_pulled(tmp_path, table):
    """With a call in the air: in doubt, told to the EMS, not sent again. What was asked for meanwhile goes once the cable is back."""
    async with cabled(tmp_path, Modbus, Knobs(answer_delay_s=1)) as made:
        link = made.link
        first = await link.ask()
        async with asyncio.timeout(20):
            while not made.sandbox.ledger.of("asset.create"):
                await asyncio.sleep(0.01)
        made.smp_wire.down()
        await link.until([first], IN_DOUBT)
        made.sandbox.knobs.answer_delay_s = 0
        second = await link.ask()
        await link.until([second], "received", "sent")
        await asyncio.sleep(1.5)
        assert made.sandbox.ledger.creates(second) == 0
        made.smp_wire.up()
        recovery_s = await link.until([second], REGISTERED)
        assert await link.word(first) == IN_DOUBT
        calls = made.sandbox.ledger.of("asset.create")
        assert [entry.references.count(first) for entry in calls].count(1) == 1
        table.add(await link.row("cable to SMP pulled", recovery_s=recovery_s))
