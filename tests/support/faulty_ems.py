"""The whole service on real EMSs with a fault proxy in each link, and the count of what became of every asset that they asked for."""

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager

import modbus_records as layout2
from admin import get, value
from fault_table import Row
from modbus_device import modbus_device
from mosquitto import Peer as MqttPeer
from mosquitto import mosquitto
from opcua_peer import PASSWORD, USER, opcua_peer
from processes import CONFIG, World, market_side
from service import CLOCK

from bridge.app import Host, Running
from bridge.config import load
from bridge.demo.ems_opcua import OpcUaEms
from bridge.model import EmsState
from bridge.registry import find
from bridge.testing.proxy import FaultProxy

REGISTERED, IN_DOUBT, REFUSED = "registered", "in_doubt", ("refused", "refused_by_host")
RECOVER_S = 10.0
SLOTS = 24
BASE, STRIDE, RESULT, HEARTBEAT = 100, 80, 60, 5
WORDS = {int(state): state.word for state in EmsState}
ASSET_TOPIC = "acme/crawley/ems/asset/{}/registration"
RESULTS = "acme/crawley/ems/+/+/registration/result"
CHARGER = {"name": "Charger", "mpan": "1012345678903", "postcode": "ME1 2AB", "gspGroup": "_J", "kw": "49,5"}


class Link:
    """One EMS behind its proxy. `noticed_s` is how long a silent link may pass for a good one; `called` is another word for its address."""

    site = ""
    called = ""
    noticed_s = 0.0

    def __init__(self):
        self.asked = []

    async def open(self, made, stack, directory, host, port):
        """Put the proxy in front of the EMS and tell the service of it."""
        self.made = made
        self.proxy = await stack.enter_async_context(FaultProxy(host, port, seed=11, listener=made.listener))
        text = (CONFIG / f"sites/{self.shipped}.yaml").read_text()
        text = text.replace(f"site: {self.shipped}", f"site: {self.site}").replace(
            f"count: {64}}}", f"count: {SLOTS}}}"
        )
        text = text.replace(f"SMP_BRIDGE_{self.shipped.upper()}", f"SMP_BRIDGE_{self.site.upper()}")
        (made.config / f"sites/{self.site}.yaml").write_text(text)
        made.environment |= {f"SMP_BRIDGE_{self.site.upper()}_{name}": text for name, text in self.settings().items()}

    @property
    def host(self):
        """How the service is told to reach it."""
        return self.called or self.proxy.host

    async def until(self, references, *words, within_s=30.0):
        """Wait until the EMS was told one of these words of each; returns how long that took in seconds."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                while not all([await self.word(reference) in words for reference in references]):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            told = {reference: await self.word(reference) for reference in references}
            raise AssertionError(f"{self.site} was told {told}, expected {words}") from None
        return time.monotonic() - started

    async def calm(self):
        """Wait until the EMS has said all it had to say of its last request."""

    async def up(self):
        """Whether the service has a session open, by its own metric."""
        return value((await get(self.made, "/metrics"))[1], "smp_bridge_link_up", site=self.site) == 1

    async def heard_s_ago(self):
        """The age of the last good reading, as the health page shows it."""
        last = value(
            (await get(self.made, "/metrics"))[1], "smp_bridge_last_good_reading_monotonic_seconds", site=self.site
        )
        return time.monotonic() - last

    async def until_up(self, up=True, within_s=30.0):
        started = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                while await self.up() is not up:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.site}: link_up is not {up} within {within_s} s") from None
        return time.monotonic() - started

    async def row(self, fault, *, references=None, rounds=1, recovery_s=0.0, broken=""):
        """What became of these (by default all that were asked for), by the EMS's own memory and the sandbox's own book."""
        references = self.asked if references is None else references
        words = [await self.word(reference) for reference in references]
        creates = [self.made.sandbox.ledger.creates(reference) for reference in references]
        good = [word == REGISTERED and count == 1 for word, count in zip(words, creates, strict=True)]
        ghosts = sum(word in REFUSED and count > 0 for word, count in zip(words, creates, strict=True))
        slow = f"recovered after {recovery_s:.1f} s" if recovery_s > RECOVER_S else ""
        return Row(
            fault=f"{self.name}: {fault}", rounds=rounds, requested=len(references), accepted_once=sum(good),
            refused=sum(word in REFUSED for word in words), in_doubt=words.count(IN_DOUBT),
            lost=sum(word not in {REGISTERED, IN_DOUBT, *REFUSED} for word in words), twice=sum(count > 1 for count in creates),
            recovery_s=recovery_s, broken=broken or slow or (f"{ghosts} created and called refused" if ghosts else ""),
        )  # fmt: skip


class NodeOpcUa(Link):
    """node-opcua in a process of its own."""

    name, site, shipped, noticed_s = "OPC UA (node-opcua)", "ipswich", "ipswich", 10.0

    async def begin(self, made, stack, directory):
        self.peer = await stack.enter_async_context(opcua_peer(directory))
        self.places = [f"BESS{number:03}" for number in range(1, SLOTS + 1)]
        await self.peer.layout(self.places)
        await self.peer.start()
        await self.open(made, stack, directory, "127.0.0.1", self.peer.port)

    def settings(self):
        return {
            "URL": f"opc.tcp://{self.host}:{self.proxy.port}", "CERTIFICATE": str(self.peer.client.certificate),
            "KEY": str(self.peer.client.private_key), "SERVER_CERTIFICATE": str(self.peer.own.certificate),
            "USER": USER, "PASSWORD": PASSWORD,
        }  # fmt: skip

    async def ask(self):
        number = len(self.asked) + 1
        await self.peer.request(self.places[number - 1])
        self.asked.append(f"REF{number}")
        return self.asked[-1]

    async def word(self, reference):
        place = self.places[int(reference.removeprefix("REF")) - 1]
        return WORDS[await self.peer.value(f"EMS/Assets/{place}/Registration/State")]


class AsyncuaOpcUa(Link):
    """The demo's EMS on asyncua's server."""

    name, site, shipped, noticed_s = "OPC UA (asyncua)", "derby", "ipswich", 10.0

    async def begin(self, made, stack, directory):
        self.ems = OpcUaEms(SLOTS, seed=5, directory=directory / "derby", site="derby", prefix="DY")
        await stack.enter_async_context(self.ems)
        await self.open(made, stack, directory, self.ems.host, self.ems.port)

    def settings(self):
        return {
            "URL": f"opc.tcp://{self.host}:{self.proxy.port}", "CERTIFICATE": str(self.ems.client_certificate),
            "KEY": str(self.ems.client_key), "SERVER_CERTIFICATE": str(self.ems.server_certificate),
            "USER": self.ems.user, "PASSWORD": self.ems.password,
        }  # fmt: skip

    async def ask(self):
        reference = self.ems.assets[len(self.asked)].reference
        self.ems._memory.expect(reference)
        await self.ems._ask(self.ems._places[reference])
        self.asked.append(reference)
        return reference

    async def word(self, reference):
        item = self.ems.items().get(reference)
        return item.state if item is not None else "idle"


class Modbus(Link):
    """libmodbus in a process of its own, with the handshake of layout 2."""

    name, site, shipped, noticed_s = "Modbus", "rugby", "rugby", 3.0

    def __init__(self):
        super().__init__()
        self.shaking = None  # the task of the handshake under way

    async def begin(self, made, stack, directory):
        self.device = await stack.enter_async_context(modbus_device())
        await self.device.put(0, *layout2.HEADER)
        await self.open(made, stack, directory, self.device.host, self.device.port)

    def settings(self):
        return {"HOST": self.host, "PORT": str(self.proxy.port)}

    async def beat(self):
        """The heartbeat: an EMS whose counter stands still is not believed."""
        for beat in range(1, 60_000):
            await self.device.put(HEARTBEAT, beat)
            await asyncio.sleep(0.1)

    async def ask(self):
        """Fill the next slot and raise the command; the handshake goes on beside the test, for it cannot end while the link is broken."""
        await self.calm()
        for number, reference in enumerate(self.asked):
            if (
                await self.word(reference) == REGISTERED
            ):  # its slot is emptied, for a command asks for all that stand in one
                await self.device.put_bytes(BASE + STRIDE * number, bytes(100))
        number = len(self.asked)
        self.asked.append(f"RK{number + 1}")
        await self.device.put_bytes(BASE + STRIDE * number, layout2.record(self.asked[-1]))
        self.shaking = self.made.group.create_task(self._shake_hands())
        return self.asked[-1]

    async def calm(self):
        if self.shaking is not None:
            await self.shaking

    async def _shake_hands(self):
        """Until the host says that it has the request; an EMS that hears that its request was unreadable asks again."""
        status = 0
        while status != 3:
            [sequence] = await self.device.words(layout2.SEQUENCE)
            await self.device.put(layout2.SEQUENCE, sequence + 1)
            await self.device.put(layout2.COMMAND, 1)
            status = await self._status({3, 4})
            await self.device.put(layout2.COMMAND, 0)
            await self._status({0})

    async def _status(self, wanted):
        async with asyncio.timeout(150):
            while (status := (await self.device.words(layout2.STATUS))[0]) not in wanted:
                await asyncio.sleep(0.02)
        return status

    async def word(self, reference):
        number = int(reference.removeprefix("RK")) - 1
        return WORDS[(await self.device.words(BASE + STRIDE * number + RESULT))[0]]


class Mqtt(Link):
    """mosquitto in a process of its own, over TLS; the EMS has its own connection to it."""

    name, site, shipped, noticed_s = "MQTT", "crawley", "crawley", 12.0

    async def begin(self, made, stack, directory):
        self.broker = await stack.enter_async_context(
            mosquitto(
                directory / "mqtt",
                tls=True,
                user="smp-bridge",
                password="secret",
                names=("127.0.0.1", "localhost", *made.addresses),
            )  # fmt: skip
        )
        self.ems = await stack.enter_async_context(MqttPeer(self.broker, client_id="ems", clean=False))
        await self.ems.subscribe(RESULTS)
        await self.open(made, stack, directory, self.broker.host, self.broker.port)

    def settings(self):
        return {
            "HOST": self.host, "PORT": str(self.proxy.port), "CA": str(self.broker.ca), "USER": "smp-bridge", "PASSWORD": "secret",
        }  # fmt: skip

    async def ask(self):
        name = f"EV{len(self.asked) + 1}"
        await self.register(name)
        await self.request(name)
        self.asked.append(name)
        return name

    async def register(self, name):
        """What the EMS holds of this asset, for whoever comes."""
        await self.ems.publish(ASSET_TOPIC.format(name), CHARGER, retain=True)

    async def request(self, name, request="", **how):
        """Only the request, as the EMS says it."""
        await self.ems.publish(
            ASSET_TOPIC.format(name) + "/request", {"reqId": request or f"r-{name}", "action": "create"}, **how
        )

    async def word(self, reference):
        results = self.ems.on(ASSET_TOPIC.format(reference) + "/result")
        return results[-1]["state"] if results else "idle"


LINKS = (NodeOpcUa, AsyncuaOpcUa, Modbus, Mqtt)


class Faulty(World):
    """The sandbox, the service in this process, and its links. `listener` makes the proxies' sockets, `addresses` are theirs, where they are not on loopback."""

    listener = None
    addresses = ()

    async def settle(self):
        """All well again: no fault, and every link up."""
        for link in self.links:
            link.proxy.clear()
            await link.proxy.listen()
        for link in self.links:
            await link.until_up()


@asynccontextmanager
async def faulty_ems(directory, *links, knobs=None, profile="default", name=""):
    """A running service with these links (classes of `LINKS`, by default all), which it reaches by their address or by this name."""
    made = Faulty(directory)
    made.links = [kind() for kind in links or LINKS]
    for link in made.links:
        link.called = name
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile=profile, knobs=knobs)
        for link in made.links:
            await link.begin(made, stack, directory)
        made.group = group = await stack.enter_async_context(asyncio.TaskGroup())
        made.running = Running()
        config = load(made.config, find, environ={**os.environ, **made.environment})
        host = group.create_task(Host(config, clock=CLOCK).run(made.running))
        beside = [group.create_task(link.beat()) for link in made.links if isinstance(link, Modbus)]
        async with asyncio.timeout(30):
            await made.running.ready.wait()
        made.listening(made.running.returns_port)
        try:
            await made.settle()
            yield made
        except BaseException as error:
            error.add_note(await told(made))
            raise
        finally:
            beside += [link.shaking for link in made.links if getattr(link, "shaking", None)]
            for task in beside:
                task.cancel()
            made.running.stop.set()
            async with asyncio.timeout(40):
                await host


async def each(links, work):
    """The same work on every link at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(link)) for link in links]
    return [task.result() for task in tasks]


async def survived(made, table, fault, inject, end=None, *, rounds=1):
    """One asset is on its way to SMP when the fault comes, its outcome is settled meanwhile, another is asked for meanwhile; then the fault ends.

    Both must be registered, once, and the EMS be told within the time that a link may take to recover.
    """
    made.sandbox.knobs.returns = "hold"
    before = await each(made.links, lambda link: link.ask())
    await each(made.links, lambda link: link.until(link.asked[-1:], "sent", REGISTERED))
    await each(made.links, lambda link: link.calm())
    await inject()
    during = await each(made.links, lambda link: link.ask())
    made.sandbox.knobs.returns = "push"
    await made.sandbox.release()
    await (end() if end else clear(made))

    async def recovered(link):
        mine = [references[made.links.index(link)] for references in (before, during)]
        return mine, await link.until(mine, REGISTERED, within_s=3 * RECOVER_S)

    rows = []
    for link, (mine, recovery_s) in zip(made.links, await each(made.links, recovered), strict=True):
        name = fault if isinstance(fault, str) else fault(link)
        rows.append(await link.row(name, references=mine, rounds=rounds, recovery_s=recovery_s))
    table.add(*rows)


async def clear(made):
    for link in made.links:
        link.proxy.clear()
        await link.proxy.listen()


async def told(made):
    """What a reader of a failed test wants to know."""
    views = await made.read(lambda journal: journal.submissions(limit=20))
    alarms = await made.read(lambda journal: journal.alarms())
    lines = [f"{view.state.value} {view.flow} {view.reason}" for view in views]
    lines += [f"alarm {alarm.code} {alarm.subject} {alarm.text}" for alarm in alarms]
    return "\n".join(lines)
