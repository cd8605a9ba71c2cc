"""SMP signs with a key that nobody told us of: what it pushed is taken once the key was imported, without SMP sending it again."""

import asyncio
import json
from pathlib import Path

from service import PARTICIPANT, fill, linked, service, until_words

from bridge.cli import keys as command


async def test_a_return_before_the_import_is_taken_after_it(tmp_path, monkeypatch):
    """The return is refused with 401 and stays so at SMP; `keys import` settles its submission all the same."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        made.sandbox.rotate_key()
        (place,) = fill(ems, 1, first=1)
        ems.request("assets", place)
        async with asyncio.timeout(10):
            while not any(entry.status for entry in made.ledger.returns):
                await asyncio.sleep(0.01)
        file = tmp_path / "next.jwks.json"
        file.write_text(json.dumps(made.sandbox.jwks()))
        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        await asyncio.to_thread(
            command.import_, file, PARTICIPANT, "Ada", "a test", active=False, days=0, config=Path("config")
        )
        await until_words(ems, [place], {3: 1})
        assert {entry.status for entry in made.ledger.returns} == {401}
