"""The bridge as it is run: processes that are started, split, stopped and killed."""

import asyncio

from processes import world

from bridge.sandbox import Knobs


async def test_one_market_and_two_field_processes_share_a_journal(tmp_path):
    """Each site has a process of its own, a third one speaks to SMP: every outcome comes back to its own site, units too."""
    async with world(tmp_path) as made:
        market = await made.run("--role", "market")
        fields = [await made.run("--role", "field", "--site", site) for site in ("rugby", "derby")]
        for process in (market, *fields):
            await process.until("ready")
        for ems in made.ems.values():
            await ems.request_assets()
        for site in made.ems:
            await made.until_words(site, "registered", 20)
        for ems in made.ems.values():
            await ems.request_unit([asset.reference for asset in ems.assets])
        for site in made.ems:
            await made.until_words(site, "registered", 21)
            assert made.created(site) == [1] * 20
        assert [await process.stop() for process in (*fields, market)] == [0, 0, 0]


async def test_a_second_market_side_refuses_to_start(tmp_path):
    """One participant entry has one market side; the second process says who holds it and ends with status 1."""
    async with world(tmp_path) as made:
        first = await made.run("--role", "market")
        await first.until("ready")
        second = await made.run("--role", "market")
        assert await second.ended() == 1
        assert any("market:acme-test" in str(event["event"]) for event in second.events)
        assert first.process.returncode is None


async def test_killed_in_the_middle_nothing_is_lost_or_sent_twice(tmp_path):
    """kill -9 while calls are in the air and outcomes on their way: the next process finishes everything, no asset is created twice.

    A call whose bytes were on disk and had not left when the process died stays in doubt: only a person can know that SMP never had it.
    """
    # SMP tries long enough to find each successor's end point, however slowly it starts.
    knobs = Knobs(answer_delay_s=0.2, return_delay_s=0.2, retry_delay_s=0.2, retries=1000)
    async with world(tmp_path, assets=40, knobs=knobs) as made:
        for _ in range(3):
            process = await made.run()
            await process.until("ready")
            for ems in made.ems.values():
                await ems.request_assets()
            await asyncio.sleep(0.4)
            await process.kill()
        process = await made.run()
        await process.until("ready")
        for site in made.ems:
            await made.until_told(site, within_s=60)
            assert set(made.created(site)) <= {0, 1}
        # What is in doubt is so in the journal too, and each lost process leaves no more than its calls under way.
        states = await made.states()
        assert set(states) <= {"CONFIRMED", "IN_DOUBT"}
        assert states.count("IN_DOUBT") <= 3 * made.profile.limits.concurrency


async def test_a_killed_field_process_does_not_disturb_the_other(tmp_path):
    """One site's process dies; the other site's records go on, and the dead one's requests are taken up by its successor."""
    async with world(tmp_path) as made:
        market = await made.run("--role", "market")
        rugby = await made.run("--role", "field", "--site", "rugby")
        derby = await made.run("--role", "field", "--site", "derby")
        for process in (market, rugby, derby):
            await process.until("ready")
        await derby.kill()
        await made.ems["derby"].request_assets()
        await made.ems["rugby"].request_assets()
        await made.until_words("rugby", "registered", 20)
        successor = await made.run("--role", "field", "--site", "derby")
        await successor.until("ready")
        await made.until_words("derby", "registered", 20)


async def test_a_port_that_is_taken_is_said(tmp_path):
    """One clear line with a hint and exit status 1, no traceback."""
    async with world(tmp_path) as made:
        first = await made.run()
        await first.until("ready")
        port = next(e["port"] for e in first.events if e["event"] == "listening" and e["listener"] == "admin")
        made.environment |= {"SMP_BRIDGE_ADMIN_PORT": str(port), "SMP_BRIDGE_JOURNAL": str(tmp_path / "other.db")}
        second = await made.run()
        assert await second.ended() == 1
        said = "\n".join(str(event["event"]) for event in second.events)
        assert f"cannot listen on 127.0.0.1:{port}" in said
        assert "hint:" in said
        assert "Traceback" not in said


async def test_a_configuration_with_problems_starts_nothing(tmp_path):
    """Exit status 2 with every problem named, and no journal made."""
    async with world(tmp_path) as made:
        path = made.config / "sites/derby.yaml"
        path.write_text(path.read_text().replace("unit: 1 ", "units: 1 ").replace("poll: 50ms", "poll: fast"))
        process = await made.run()
        assert await process.ended() == 2
        said = "\n".join(str(event["event"]) for event in process.events)
        assert "derby.yaml" in said
        assert "units" in said
        assert "poll" in said
        assert not made.journal.exists()
