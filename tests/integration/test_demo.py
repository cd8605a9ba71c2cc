"""The demo, started as a newcomer starts it."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

ROOT = Path(__file__).parents[2]
WANTED = {
    ("ipswich", "opcua", "batteries", "asset.create"): (120, 118, 2, 120),
    ("ipswich", "opcua", "unit", "unit.create"): (1, 1, 0, 1),
    ("rugby", "modbus", "batteries", "asset.create"): (64, 62, 2, 64),
    ("rugby", "modbus", "unit", "unit.create"): (1, 1, 0, 1),
    ("crawley", "mqtt", "chargers", "asset.create"): (200, 198, 2, None),
    ("crawley", "mqtt", "unit", "unit.create"): (1, 1, 0, None),
}


@pytest_asyncio.fixture
async def demo():
    """Starts it; one that a failed test leaves running is stopped."""
    begun = []

    async def start(directory, *arguments, **environment):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from bridge.cli import main; main()", "demo", "--config", str(ROOT / "config"), *arguments,
            env={**os.environ, "TMPDIR": str(directory), **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.communicate()


@pytest.mark.parametrize(("profile", "seed"), [("default", 11), ("odd", 12)])
async def test_every_outcome_is_written_back(demo, tmp_path, profile, seed):
    """384 assets and 3 units on three protocols: EMSs, ledger and journal agree, under either profile; nothing is left behind."""
    report = tmp_path / "report.json"
    directory = tmp_path / "run"
    directory.mkdir()
    process = await demo(directory, "--once", "--seed", str(seed), "--report", str(report), SMP_BRIDGE_PROFILE=profile)
    async with asyncio.timeout(110):
        printed, complained = await process.communicate()
    assert process.returncode == 0, printed.decode() + complained.decode()
    found = json.loads(report.read_text())
    assert (found["ok"], found["seed"], found["missing"]) == (True, seed, [])
    flows = {(row["site"], row["protocol"], row["flow"], row["operation"]): row for row in found["flows"]}
    told = {key: (row["items"], row["registered"], row["refused"], row["read_back_ok"]) for key, row in flows.items()}
    assert told == WANTED
    assert all(row["unknown"] == 0 and row["written_back"] == row["items"] for row in flows.values())
    assert found["submissions"]["total"] == sum(found["submissions"]["by_state"].values())
    assert {"mapped", "journalled", "signed", "sent", "answered", "returned", "settled", "written_back"} <= set(
        found["stages"]
    )
    assert found["host_latency"]["p50_ms"] > 0
    assert list(directory.iterdir()) == []
    assert [line for line in printed.decode().splitlines() if re.fullmatch(r"pages: http://127\.0\.0\.1:\d+/", line)]


async def pages_of(process):
    """Their address, as soon as the demo has said it; it says that on a line of its own."""
    async for line in process.stdout:
        found = re.fullmatch(r"pages: (http://127\.0\.0\.1:\d+/)\n", line.decode())
        if found:
            return found[1]
    raise AssertionError("it ended and did not say where its pages are")


async def test_ctrl_c_ends_it_cleanly(demo, tmp_path):
    """Interrupted in the middle: its pages were there, no traceback, no process and no directory stays, and no two lines run together."""
    process = await demo(tmp_path, "--seed", "3")
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        async with http.get(await pages_of(process)) as answer:
            assert (answer.status, "Reading without a token" in await answer.text()) == (200, True)
        while not [log for log in tmp_path.glob("*/bridge.log") if b"link_open" in log.read_bytes()]:
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed, complained = await process.communicate()
    assert process.returncode == 0
    assert complained.decode() == ""
    assert "What became of every record" in [line.strip() for line in printed.decode().splitlines()]
    assert list(tmp_path.iterdir()) == []


async def inside(directory, *arguments):
    """A command beside or after the demo, with its settings as a person takes them in; what it printed."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", '. "$0/env.sh" && exec "$@"', str(directory), sys.executable, "-c", "from bridge.cli import main; main()",
        *arguments, "--config", str(ROOT / "config"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def test_the_other_commands_work_on_a_kept_run(demo, tmp_path):
    """A token that its pages believe while it runs; when it has ended, evidence that can be verified."""
    process = await demo(tmp_path, "--seed", "4", "--keep")
    out, names = tmp_path / "evidence.zip", ("--participant", "acme-test")
    async with asyncio.timeout(100), aiohttp.ClientSession() as http:
        url = await pages_of(process)
        [kept] = tmp_path.iterdir()
        printed = await inside(kept, "token", "new", "--role", "viewer", *names, "--for", "Ann", "--by", "Bob")
        [token] = [line for line in printed.splitlines() if line.count(".") == 2 and " " not in line]
        async with http.get(f"{url}api/v1/whoami", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert (answer.status, (await answer.json())["name"]) == (200, "Ann")
        while b"link_open" not in (kept / "bridge.log").read_bytes():
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        await process.communicate()
        await inside(kept, "evidence", "export", *names, "--from", "2000-01-01", str(out))
        await inside(kept, "evidence", "verify", str(out))


async def test_a_missing_configuration_is_said(tmp_path):
    """Exit status 2 with a hint where to find the sample."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from bridge.cli import main; main()", "demo", "--once", cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complained = await process.communicate()
    assert process.returncode == 2
    assert "hint:" in complained.decode()
