"""Three EMSs behind real servers, in a process that is never killed: node-opcua, libmodbus and mosquitto, and the programs that ask and remember.

    python kill_ems.py DIRECTORY PLACES SLOTS

It says `{"environment": {...}}` (what the bridge's site files need), then answers each line of JSON on standard input with one:

    {"op": "request", "site": "rugby", "count": 2}   → {"references": [...]}; new records, whose registration is asked for as soon as there is a place
    {"op": "shown"}                                  → {"shown": {reference: [state word, transaction id]}, "requested": N, "said_again": N}
    {"op": "forget", "references": [...]}            → {}; the EMS no longer waits for these: their places may be used again
    {"op": "raised"}                                 → {"waiting": N}; requests that a handshake still keeps from being made
    {"op": "busy", "times": 60}                      → {}; the Modbus device answers the next requests with exception 6; 0: no more
    {"op": "renumber"}                               → {}; the OPC UA server is restarted, with its namespaces in another order
    {"op": "broker", "forgets": true}                → {}; the broker is restarted: with its persistence, or killed and without it
    {"op": "stands"}                                 → {"stands": {site: text}}; where each program is, for a person who looks for a fault

The state word is '' while the EMS was told nothing. The programs are in kill_programs.py.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import modbus_records as layout2
from kill_programs import HEARTBEAT, ModbusProgram, MqttProgram, OpcUaProgram, Program
from modbus_device import modbus_device
from mosquitto import Peer as MqttPeer
from mosquitto import mosquitto
from opcua_peer import PASSWORD, USER, opcua_peer


async def _programs(stack: AsyncExitStack, directory: Path, places: int, slots: int):
    opcua = await stack.enter_async_context(opcua_peer(directory))
    names = [f"BESS{number:03}" for number in range(1, places + 1)]
    await opcua.layout(names)
    await opcua.start()
    modbus = await stack.enter_async_context(modbus_device())
    await modbus.put(0, *layout2.HEADER)
    await modbus.order("beat", at=HEARTBEAT, on=True)
    # By default it throws away what exceeds 1,000 messages for one client, and each visit of the bridge asks for all that is retained.
    queue = "max_queued_messages 0"
    broker = await stack.enter_async_context(
        mosquitto(directory / "mqtt", tls=True, user="smp-bridge", password="secret", extra=queue)
    )
    peer = await stack.enter_async_context(MqttPeer(broker, client_id="ems", clean=False))
    mqtt = MqttProgram(peer, broker)
    await mqtt.subscribe()
    environment = {
        "SMP_BRIDGE_IPSWICH_URL": opcua.url, "SMP_BRIDGE_IPSWICH_CERTIFICATE": str(opcua.client.certificate),
        "SMP_BRIDGE_IPSWICH_KEY": str(opcua.client.private_key), "SMP_BRIDGE_IPSWICH_USER": USER,
        "SMP_BRIDGE_IPSWICH_SERVER_CERTIFICATE": str(opcua.own.certificate), "SMP_BRIDGE_IPSWICH_PASSWORD": PASSWORD,
        "SMP_BRIDGE_RUGBY_HOST": modbus.host, "SMP_BRIDGE_RUGBY_PORT": str(modbus.port),
        "SMP_BRIDGE_CRAWLEY_HOST": broker.host, "SMP_BRIDGE_CRAWLEY_PORT": str(broker.port),
        "SMP_BRIDGE_CRAWLEY_CA": str(broker.ca), "SMP_BRIDGE_CRAWLEY_USER": broker.user, "SMP_BRIDGE_CRAWLEY_PASSWORD": "secret",
    }  # fmt: skip
    programs = {
        "ipswich": OpcUaProgram(opcua, names),
        "rugby": ModbusProgram(modbus, slots),
        "crawley": mqtt,
    }
    return programs, environment


async def _obey(programs: dict[str, Program], order: dict) -> dict:
    if order["op"] == "request":
        program = programs[order["site"]]
        return {"references": [await program.request() for _ in range(order["count"])]}
    if order["op"] == "forget":
        for program in programs.values():
            program.forgotten.update(order["references"])
        return {}
    if order["op"] == "busy":
        await programs["rugby"].busy(order["times"])
        return {}
    if order["op"] == "renumber":
        await programs["ipswich"].renumber()
        return {}
    if order["op"] == "broker":
        await programs["crawley"].restart(forgets=order["forgets"])
        return {}
    if order["op"] == "raised":
        return {"waiting": sum(program.waiting() for program in programs.values())}
    if order["op"] == "stands":
        return {"stands": {site: await program.stands() for site, program in programs.items()}}
    shown: dict[str, tuple[str, str]] = {}
    for program in programs.values():
        shown |= await program.shown()
    said_again = len(programs["crawley"].said_again)
    return {
        "shown": shown,
        "requested": sum(len(program.requested) for program in programs.values()),
        "said_again": said_again,
    }


async def main(directory: Path, places: int, slots: int) -> None:
    orders = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with AsyncExitStack() as stack:
        programs, environment = await _programs(stack, directory, places, slots)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = [group.create_task(programs[site].run()) for site in ("ipswich", "rugby", "crawley")]
        print(json.dumps({"environment": environment}), flush=True)
        while line := await orders.readline():
            print(json.dumps(await _obey(programs, json.loads(line))), flush=True)
        for task in running:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
