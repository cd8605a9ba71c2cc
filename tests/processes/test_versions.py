"""The version before this one and this one, in turns, on one journal: upgrade and rollback lose nothing and send nothing twice."""

import asyncio
import io
import subprocess
import tarfile
from pathlib import Path

import apsw
import pytest
from processes import world

from bridge.sandbox import Knobs

ROOT = Path(__file__).parents[2]
BEFORE = "52f18e9"  # the last commit whose journal knew of no holds, no seals and no acknowledged alarms


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The packages of the version before, from the project's own history."""
    try:
        found = subprocess.run(
            ["git", "-C", ROOT, "archive", BEFORE, "bridge", "adapters", "config"], check=True, capture_output=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the project's history is not here, so the version before cannot be run: {error}")
    directory = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def change(made, version):
    """Another version of the packages, with the configuration that it knows."""
    made.version = version
    (made.config / "bridge.yaml").write_text(((version or ROOT) / "config/bridge.yaml").read_text())


async def until_out(made, count):
    async with asyncio.timeout(30):
        while len([entry for entry in made.sandbox.ledger.of("asset.create") if entry.status == 202]) < count:
            await asyncio.sleep(0.05)


async def test_upgrade_rollback_and_upgrade_again(tmp_path, older):
    """Each version takes up what the other one left: calls that are out, outcomes to write, requests that were handled."""
    async with world(tmp_path, assets=2, knobs=Knobs(returns="hold")) as made:
        for code, site, release in ((older, "rugby", False), (None, "derby", True)):
            change(made, code)
            process = await made.run()
            await process.until("ready")
            await made.ems[site].request_assets()
            await until_out(made, 1)
            if release:  # of what the version before had sent, too
                made.sandbox.knobs.returns = "push"
                await made.sandbox.release()
                for place in made.ems:
                    await made.until_words(place, "registered", 2)
            assert await process.stop() == 0
        change(made, older)
        process = await made.run()
        await process.until("ready")
        for ems in made.ems.values():  # asked again: both are repeats
            await ems.request_assets()
        await made.ems["rugby"].request_unit([asset.reference for asset in made.ems["rugby"].assets])
        await made.until_words("rugby", "registered", 3)
        assert await process.stop() == 0
        change(made, None)
        process = await made.run()
        await process.until("ready")
        await made.ems["derby"].request_unit([asset.reference for asset in made.ems["derby"].assets])
        await made.until_words("derby", "registered", 3)
        assert await process.stop() == 0
        for site in made.ems:
            assert made.created(site) == [1, 1]
        status, printed, told = await made.say("journal", "verify")
        assert (status, told) == (0, ""), printed


async def test_a_newer_major_version_is_refused(tmp_path):
    """A journal from the future is not touched: status 1, a hint, and no traceback."""
    async with world(tmp_path, assets=1) as made:
        process = await made.run()
        await process.until("ready")
        assert await process.stop() == 0
        db = apsw.Connection(str(made.journal))
        db.execute("PRAGMA user_version = 20001")
        db.close()
        before = made.journal.read_bytes()
        process = await made.run()
        assert await process.ended() == 1
        told = " ".join(str(event["event"]) for event in process.events)
        assert "major version 2" in told
        assert "newer" in told
        assert "Traceback" not in told
        assert made.journal.read_bytes() == before
