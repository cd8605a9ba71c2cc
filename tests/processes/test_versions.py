"""The version before this one and this one, in turns, on one journal: upgrade and rollback lose nothing and send nothing twice."""

import asyncio
import io
import subprocess
import tarfile
from pathlib import Path

import apsw
import pytest
from processes import world
from replying import ANSWERS, RESULTS, answers, ask, correlation, crawley, until_answered

from bridge.sandbox import Knobs

ROOT = Path(__file__).parents[2]
BEFORE = "52f18e9"  # the last commit whose journal knew of no holds, no seals and no acknowledged alarms


BEFORE_REPLIES = "6d4f797"  # the last one whose journal kept nothing of what a request says about its answer


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The packages of the version before, from the project's own history."""
    return packages(BEFORE, tmp_path_factory.mktemp("older"))


def packages(commit, directory):
    """The packages as they were at a commit."""
    try:
        found = subprocess.run(
            ["git", "-C", ROOT, "archive", commit, "bridge", "adapters", "config"], check=True, capture_output=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the project's history is not here, so the version before cannot be run: {error}")
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


@pytest.mark.long
async def test_what_requests_say_about_their_answers_outlives_a_rollback(tmp_path):
    """The version before knows nothing of it and leaves it where it stands; results go where their requests asked once this one is back."""
    before = packages(BEFORE_REPLIES, tmp_path / "before")
    async with crawley(tmp_path) as made:
        await made.mqtt.subscribe(ANSWERS.format("+"), RESULTS.format("+"))
        for version, place in ((None, "EV1"), (before, "EV2"), (None, "EV3")):
            change(made, version)
            process = await made.run()
            await process.until("link_open")
            await ask(made, place)
            await until_answered(made, place, "sent")
            if place == "EV3":
                made.sandbox.knobs.returns = "push"
                await made.sandbox.release()
                for kept in ("EV1", "EV3"):
                    await until_answered(made, kept, "registered")
                    assert {data for _, data in answers(made, kept)} == {correlation(kept)}
                async with asyncio.timeout(
                    30
                ):  # that version kept the way of its answer in memory alone: the flow's own topic has it
                    while made.mqtt.on(RESULTS.format("EV2"))[-1]["state"] != "registered":
                        await asyncio.sleep(0.02)
                assert "registered" not in [state for state, _ in answers(made, "EV2")]
            assert await process.stop() == 0
        assert [made.sandbox.ledger.creates(place) for place in ("EV1", "EV2", "EV3")] == [1, 1, 1]
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
