"""Somebody who pushes garbage at an end point: `URL SMALL_PER_S LARGE_PER_S NEW_PER_S`, until it is ended. Says `{"answered": [STATUS, …]}` of the first three once it has begun.

Small ones have no signature, one of an unknown key, or one that names SMP's own key and is not its; large ones are a megabyte with such a signature;
new ones come over a TLS connection of their own each. All come from an address of their own, for the end point limits what one source may try.
"""

import asyncio
import base64
import json
import sys
from contextlib import suppress

import aiohttp

SOURCE = ("127.0.0.2", 0)


def token(kid):
    head = base64.urlsafe_b64encode(json.dumps({"alg": "ES256", "kid": kid}).encode()).rstrip(b"=").decode()
    return f"{head}..{base64.urlsafe_b64encode(bytes(range(1, 65))).rstrip(b'=').decode()}"


SMALL = json.dumps({"messageId": "1", "text": "garbage"}).encode()
LARGE = json.dumps({"messageId": "1", "text": "x" * 1_000_000}).encode()
SIGNATURES = ({}, {"x-jws-signature": token("nobody")}, {"x-jws-signature": token("smp-1")})


async def every(per_s, push):
    """Push so often a second, whatever comes back; those under way are bounded by the connector."""
    async with asyncio.TaskGroup() as group:
        number = 0
        while per_s:
            group.create_task(push(number))
            number += 1
            await asyncio.sleep(1 / per_s)


async def main(url, small, large, new):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=8, local_addr=SOURCE)) as http:

        async def push(session, body, headers):
            with suppress(aiohttp.ClientError, OSError):
                async with session.post(
                    url, data=body, headers={"Content-Type": "application/json", **headers}
                ) as answer:
                    await answer.read()
                    return answer.status

        async def alone(number):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, local_addr=SOURCE)) as session:
                await push(session, SMALL, SIGNATURES[number % 3])

        print(json.dumps({"answered": [await push(http, SMALL, headers) for headers in SIGNATURES]}), flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(every(small, lambda number: push(http, SMALL, SIGNATURES[number % 3])))
            group.create_task(every(large, lambda _: push(http, LARGE, SIGNATURES[2])))
            group.create_task(every(new, alone))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(float(word) for word in sys.argv[2:])))
