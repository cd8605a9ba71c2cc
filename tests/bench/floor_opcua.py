"""The reference script for OPC UA: asyncua subscribes to each slot's reference at 10 ms and reads the record in one go when it moves. See floor_smp.py."""

import asyncio

from asyncua import Client, ua
from floor_smp import run

NAMES = ("assetReference", "assetName", "importMpan", "postcode", "gspGroup", "maxExportKw")


async def work(options, smp):
    async with Client(f"opc.tcp://127.0.0.1:{options['peer']}") as client:
        index = await client.get_namespace_index("urn:acme:bench")
        folder = client.get_node(ua.NodeId("EMS", index))
        moved = asyncio.Queue()
        handler = type(
            "Handler", (), {"datachange_notification": lambda _, node, value, data: value and moved.put_nowait(node)}
        )()
        subscription = await client.create_subscription(10, handler)
        names = ("Reference", "Name", "MPAN", "Postcode", "GSPGroup", "KW")
        slots, sent = {}, {}
        for slot in await folder.get_children():
            nodes = [await slot.get_child(f"{index}:{name}") for name in names]
            slots[nodes[0]] = nodes
        await subscription.subscribe_data_change(list(slots), sampling_interval=10)
        while True:
            node = await moved.get()
            values = await client.read_values(slots[node])
            if values[0] != sent.get(node):
                sent[node] = values[0]
                smp.send({**dict(zip(NAMES, values, strict=True)), "maxImportKw": values[5]})


run(work)
