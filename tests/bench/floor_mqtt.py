"""The reference script for MQTT: paho driven by the event loop's own readers and writers. See floor_smp.py."""

import asyncio
import socket

import orjson
from floor_smp import run
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


async def work(options, smp):
    loop = asyncio.get_running_loop()
    client = Client(CallbackAPIVersion.VERSION2, manual_ack=True)

    def on_message(client, _, message):
        it = orjson.loads(message.payload)
        fields = {"assetReference": it["id"], "assetName": it["name"], "importMpan": it["mpan"], "postcode": it["postcode"], "gspGroup": it["gspGroup"], "maxExportKw": it["kw"], "maxImportKw": it["kw"]}  # fmt: skip
        smp.send(fields, lambda: client.ack(message.mid, message.qos))

    def opened(client, _, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock, client.loop_read, 100)

    client.on_message, client.on_socket_open = on_message, opened
    client.on_socket_register_write = lambda client, _, sock: loop.add_writer(sock, client.loop_write)
    client.on_socket_unregister_write = lambda client, _, sock: loop.remove_writer(sock)
    client.on_connect = lambda *_: client.subscribe("bench/slot/+", 1)
    client.connect("127.0.0.1", options["peer"], keepalive=60)
    while True:
        await asyncio.sleep(1)
        client.loop_misc()


run(work)
