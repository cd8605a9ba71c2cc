"""What people decide, by the commands as they type them, beside a running service; and how the service ends."""

import asyncio
import json
import signal
import time

from forked import MAIN
from processes import world

from bridge.sandbox import Fault, Knobs

DRAIN_S = 1.0
WHO = ("--by", "bob", "--reason", "the help desk said so")


async def ids(made, state):
    status, printed, _ = await made.say("submissions", "list", "--state", state, "--json")
    assert status == 0
    return [view["id"] for view in json.loads(printed)]


async def until_ids(made, state, count=1):
    async with asyncio.timeout(30):
        while len(found := await ids(made, state)) < count:
            await asyncio.sleep(0.1)
    return found


async def until_arrived(made, operation):
    """SMP has the call and has not answered yet: seen at SMP itself, since a command takes longer to start than a short answer."""
    async with asyncio.timeout(30):
        while not any(entry.operation == operation for entry in made.sandbox.ledger.requests):
            await asyncio.sleep(0.01)


async def test_a_person_sends_a_doubtful_call_again(tmp_path):
    """The answer was lost and SMP never had the call: `resolve --resend` makes it go at once, once, and the journal says who and why."""
    faults = [Fault(operation="asset.create", drop=True)]
    async with world(tmp_path, assets=3, knobs=Knobs(faults=faults)) as made:
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        [doubt] = await until_ids(made, "in-doubt")
        status, _, told = await made.say("submissions", "retry", doubt, *WHO)
        assert (status, "only SET_ASIDE and RETRY_WAIT" in told, "hint:" in told) == (1, True, True)
        status, printed, told = await made.say("submissions", "resolve", doubt, "--resend", *WHO)
        assert (status, told, f"{doubt}: goes again" in printed) == (0, "", True)
        await made.until_words("rugby", "registered", 3)
        assert made.created("rugby") == [1] * 3
        _, printed, _ = await made.say("submissions", "show", doubt, "--full")
        assert '"by": "bob", "reason": "the help desk said so"' in printed


async def test_a_person_confirms_a_doubtful_call(tmp_path):
    """SMP had the call, but its answer and its return are lost: a file of outcomes settles it; what is wrong with a file is said line by line first."""
    knobs = Knobs(faults=[Fault(operation="asset.create", process=True, drop=True)], returns="never")
    async with world(tmp_path, assets=3, knobs=knobs) as made:
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        [doubt] = await until_ids(made, "in-doubt")
        keys = [asset.reference for asset in made.ems["rugby"].assets]
        file = tmp_path / "outcomes.csv"
        file.write_text(
            f"reference;outcome;asset_id\n{keys[0]};registered;A-1\n{keys[0]};perhaps;\nXX99;refused;\n{keys[1]};refused;A-2\n"
        )
        status, _, told = await made.say("submissions", "resolve", doubt, "--confirm", file, *WHO)
        assert status == 2
        assert [f"outcomes.csv:{line}:" in told for line in (3, 4, 5)] == [True] * 3
        for text in (
            "stands in the file twice",
            "perhaps is none",
            "XX99 is no item",
            "only a registered item has one",
        ):
            assert text in told
        file.write_text(f"\ufeffoutcome,reference,asset_id\nregistered,{keys[0]},A-1\nrefused,{keys[1]},\n")
        status, _, told = await made.say("submissions", "resolve", doubt, "--confirm", file, *WHO)
        assert (status, f"missing: {keys[2]}" in told) == (1, True)
        file.write_text(
            f"reference,outcome,asset_id,error_text\n{keys[0]},registered,A-1\n{keys[1]},refused,,no such meter\n{keys[2]},registered,A-3\n"
        )
        status, printed, told = await made.say("submissions", "resolve", doubt, "--confirm", file, *WHO)
        assert (status, told) == (0, "")
        await made.until_words("rugby", "registered", 2)
        await made.until_words("rugby", "refused", 1)
        assert await ids(made, "partial") == [doubt]
        assert len(made.sandbox.ledger.of("asset.create")) == 1


async def test_a_person_gives_a_doubtful_call_up(tmp_path):
    """`resolve --cancel` takes the whole call only; the EMS is told, and may ask for its records anew."""
    faults = [Fault(operation="asset.create", drop=True)]
    async with world(tmp_path, assets=2, knobs=Knobs(faults=faults)) as made:
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        [doubt] = await until_ids(made, "in-doubt")
        key = made.ems["rugby"].assets[0].reference
        status, _, told = await made.say("submissions", "resolve", doubt, "--cancel", "--item", key, *WHO)
        assert (status, "leave --item away" in told) == (1, True)
        status, printed, told = await made.say("submissions", "resolve", doubt, "--cancel", *WHO)
        assert (status, printed, told) == (0, f"{doubt}: cancelled by bob\n", "")
        await made.until_words("rugby", "cancelled", 2)
        assert (await made.states(), made.created("rugby")) == (["CANCELLED"], [0, 0])
        await made.ems["rugby"].request_assets()
        await made.until_words("rugby", "registered", 2)
        assert made.created("rugby") == [1, 1]


async def test_a_person_decides_what_the_platform_never_told(tmp_path):
    """The poll plan is over and nobody knows: of the unknown items one is given up, one confirmed, one sent again; the submission's own state stays."""
    plan = {"delays_s": [0.1], "every_s": 0.2, "until_s": 0.5, "overdue_s": 0.3}
    async with world(tmp_path, assets=3, knobs=Knobs(returns="hold"), poll=plan) as made:
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        [open_] = await until_ids(made, "unresolved")
        await made.until_words("rugby", "unknown", 3)
        over, sure, again = (asset.reference for asset in made.ems["rugby"].assets)
        status, printed, told = await made.say("submissions", "resolve", open_, "--cancel", "--item", over, *WHO)
        assert (status, told) == (0, "")
        await made.until_words("rugby", "cancelled", 1)
        status, _, told = await made.say("submissions", "resolve", open_, "--cancel", "--item", over, *WHO)
        assert (status, f"{over} is cancelled" in told) == (1, True)
        file = tmp_path / "outcomes.csv"
        file.write_text(f"reference,outcome,asset_id\n{sure},registered,A-9\n")
        status, _, told = await made.say("submissions", "resolve", open_, "--confirm", file, *WHO)
        assert (status, told) == (0, "")
        await made.until_words("rugby", "registered", 1)
        made.sandbox.knobs.returns = "push"
        status, printed, told = await made.say("submissions", "resolve", open_, "--resend", "--item", again, *WHO)
        assert (status, told, "goes again as " in printed) == (0, "", True)
        await made.until_words("rugby", "registered", 2)
        assert sorted(await made.states()) == ["CONFIRMED", "UNRESOLVED"]
        assert [made.sandbox.ledger.of("asset.create")[1].references] == [[again]]
        _, printed, _ = await made.say("alarms", "list", "--json")
        assert "UNRESOLVED" not in [alarm["code"] for alarm in json.loads(printed)]


async def test_a_person_lets_go_on_what_was_set_aside(tmp_path):
    """One record meets a defect of the host and stands in nobody's way; mended, `retry` sends it at once. `retry` also ends the pause of a call that was to come again in ten minutes."""
    defect = tmp_path / "defect"
    broken = (
        "import pathlib, bridge.market.calls as calls; made = calls.CallMaker.create\n"
        "def create(self, operation, rendered, **rest):\n"
        f"    assert not pathlib.Path({str(defect)!r}).exists() or 'RK' not in repr(rendered), 'planted'\n"
        "    return made(self, operation, rendered, **rest)\n"
        f"calls.CallMaker.create = create\n{MAIN}"
    )
    pause = Fault(operation="asset.create", status=429)
    async with world(tmp_path, assets=1, retry={"delays_s": [600]}) as made:
        made.code = broken
        defect.touch()
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        [aside] = await until_ids(made, "set-aside")
        await made.until_words("rugby", "held", 1)
        made.sandbox.knobs.faults = [pause]
        await made.ems["derby"].request_assets()
        [waits] = await until_ids(made, "retry-wait")
        defect.unlink()
        for one in (waits, aside):
            status, printed, told = await made.say("submissions", "retry", one, *WHO)
            assert (status, printed, told) == (0, f"{one}: retried by bob\n", "")
        for site in made.ems:
            await made.until_words(site, "registered", 1)
            assert made.created(site) == [1]
        assert await made.states() == ["CONFIRMED"] * 2


async def test_a_site_is_held_and_released(tmp_path):
    """Nothing of the site leaves, the other one goes on, the EMS sees that it is held; it outlives a restart; released, it goes out."""
    async with world(tmp_path, assets=2) as made:
        status, printed, _ = await made.say("hold", "--site", "rugby", *WHO)
        assert (status, printed) == (0, "site rugby: held\n")
        process = await made.run()
        await process.until("ready")
        for ems in made.ems.values():
            await ems.request_assets()
        await made.until_words("derby", "registered", 2)
        await made.until_words("rugby", "held", 2)
        assert made.created("rugby") == [0, 0]
        assert await process.stop() == 0
        await (await made.run()).until("ready")
        await asyncio.sleep(0.3)
        assert made.created("rugby") == [0, 0]
        _, printed, _ = await made.say("hold", "--list")
        assert "site rugby" in printed
        assert "by bob: the help desk said so" in printed
        assert (await made.say("release", "--site", "rugby", *WHO))[:2] == (0, "site rugby: released\n")
        await made.until_words("rugby", "registered", 2)
        assert made.created("rugby") == [1, 1]


async def test_wrong_words_are_said_so(tmp_path):
    """Without a name, a reason or exactly one scope nothing is changed."""
    async with world(tmp_path, assets=1) as made:
        for arguments, text in {
            ("hold", "--site", "rugby", "--by", "bob"): "--reason must say why",
            ("hold", "--site", "rugby", "--reason", "x"): "--by must name",
            ("hold", "--by", "bob", "--reason", "x"): "exactly one of",
            ("hold", "--site", "rugy", *WHO): "rugy is not a site",
            ("hold", "--environment", "PROD", *WHO): "PROD is not an environment",
            ("hold", "--host", "--site", "rugby", *WHO): "exactly one of",
        }.items():
            status, _, told = await made.say(*arguments)
            assert (status, text in " ".join(told.replace("│", " ").split())) == (2, True), told
        status, _, told = await made.say("release", "--host", *WHO)
        assert (status, "no journal" in told) == (1, True)


async def test_the_first_signal_drains_and_the_second_does_not_wait(tmp_path):
    """A call under way is waited for; a second signal ends the process at once, and the next run takes the call up from the journal."""
    knobs = Knobs(answer_delay_s=6.0, return_delay_s=0.2)
    async with world(tmp_path, assets=2, knobs=knobs) as made:
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        await until_arrived(made, "asset.create")
        process.process.send_signal(signal.SIGTERM)
        await process.until("stopping")
        await asyncio.sleep(0.5)
        assert process.process.returncode is None, "the first signal did not wait for the call"
        began = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 1
        assert time.monotonic() - began < 3
        made.sandbox.knobs.answer_delay_s = 0.0
        await (await made.run()).until("ready")
        await made.until_words("rugby", "registered", 2)
        assert made.created("rugby") == [1, 1]


async def test_the_first_signal_alone_finishes_the_call(tmp_path):
    """Drained: the answer is journalled before the process ends, nothing is in doubt."""
    async with world(tmp_path, assets=2, knobs=Knobs(answer_delay_s=1.0, returns="hold")) as made:
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        await until_arrived(made, "asset.create")
        assert await process.stop() == 0
        assert await made.states() == ["AWAITING_RETURN"]


async def test_the_first_signal_waits_no_longer_than_it_says(tmp_path):
    """An answer that never comes holds nobody up: the process ends when the drain is over, the call stands as SENDING, is in doubt in the next run, and its return settles it."""
    async with world(tmp_path, assets=2, knobs=Knobs(returns="hold")) as made:
        made.code = f"import bridge.app; bridge.app.DRAIN_S = {DRAIN_S}; {MAIN}"
        process = await made.run()
        await process.until("ready")
        async with asyncio.timeout(30):
            while not any(entry.operation == "authenticate" and entry.status for entry in made.sandbox.ledger.requests):
                await asyncio.sleep(0.01)
        made.sandbox.knobs.answer_delay_s = 600.0
        await made.ems["rugby"].request_assets()
        await until_arrived(made, "asset.create")
        began = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert DRAIN_S <= time.monotonic() - began < DRAIN_S + 8
        assert "stopped_with_calls_under_way" in [event["event"] for event in process.events]
        assert await made.states() == ["SENDING"]
        made.sandbox.knobs.answer_delay_s = 0.0
        await (await made.run()).until("ready")
        await made.until_words("rugby", "in_doubt", 2)
        assert await made.states() == ["IN_DOUBT"]
        made.sandbox.knobs.returns = "push"
        await made.sandbox.release()
        await made.until_words("rugby", "registered", 2)
        assert await made.states() == ["CONFIRMED"]
        assert made.created("rugby") == [1, 1]
