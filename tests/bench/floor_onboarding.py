"""The reference script for onboarding: MQTT messages received, parsed, acknowledged by paho itself, and sent 1000 a call. No journal. See floor_smp.py."""

from floor_smp import CONST, ES256, HEAD, UTC, asyncio, b64, datetime, orjson, run, utils, uuid4
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


async def work(options, smp):
    loop, client, batch = asyncio.get_running_loop(), Client(CallbackAPIVersion.VERSION2), []

    def leave():
        meta = {"messageId": str(uuid4()), "messageType": "asset.create", "schemaVersion": "1.0", "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z", "environment": "TEST", "sender": "ACME", "recipient": "SMP", "correlationId": str(uuid4())}  # fmt: skip
        body = orjson.dumps({**meta, "data": {"assets": batch}})
        r, s = utils.decode_dss_signature(smp.key.sign(smp.protected + b"." + b64(body), ES256))
        extra = smp.token + smp.protected + b".." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big")) + b"\r\n"
        smp.post(HEAD % (b"/api/v1/assets", extra, len(body), body))
        batch.clear()

    def on_message(client, _, message):
        it = orjson.loads(message.payload)
        batch.append({"assetReference": it["id"], "assetName": it["name"], "importMpan": it["mpan"], "postcode": it["postcode"], "gspGroup": it["gspGroup"], "maxExportKw": it["kw"], "maxImportKw": it["kw"], **CONST})  # fmt: skip
        if len(batch) == 1000:
            leave()

    client.on_message, client.on_connect = on_message, lambda *_: client.subscribe("bench/slot/+", 1)
    client.on_socket_open = lambda client, _, sock: loop.add_reader(sock, client.loop_read, 100)
    client.on_socket_register_write = lambda client, _, sock: loop.add_writer(sock, client.loop_write)
    client.on_socket_unregister_write = lambda client, _, sock: loop.remove_writer(sock)
    client.connect("127.0.0.1", options["peer"], keepalive=0)
    while True:
        # Nothing came for a second: what is there is the last call.
        if await asyncio.sleep(1, len(batch)) == len(batch) > 0:
            leave()


run(work)
