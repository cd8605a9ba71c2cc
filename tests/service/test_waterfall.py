"""`submissions show` beside a host that was started again: the waterfall comes from the journal alone."""

import json
import sys
from contextlib import suppress

from service import fill, linked, service, until_words

from bridge.cli import main


def shown(made, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(
        sys, "argv", ["smp-bridge", "submissions", *arguments, "--config", str(made.directory / "config")]
    )
    monkeypatch.setattr("bridge.cli.submissions.read", lambda config, ask: made.found)
    with suppress(SystemExit):
        main()
    return capsys.readouterr().out


async def test_the_waterfall_survives_a_restart(tmp_path, monkeypatch, capsys):
    """Every stage of a settled submission is there after the process that saw it has ended, in text and as JSON."""
    from bridge.cli.submissions import _gather

    async with service(tmp_path) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        await made.stop()
        await made.start()
        [view] = await made.read(lambda journal: journal.submissions())
        made.found = await made.read(lambda journal: _gather(journal, view.id))
        monkeypatch.setattr("bridge.cli.submissions.loaded", lambda _: made.config())
        latency = json.loads(shown(made, monkeypatch, capsys, "show", view.id, "--json"))["latency"]
        hops = [stage["stage"] for stage in latency["stages"]]
        assert set(hops) >= {"mapped", "signed", "journalled", "sent", "answered", "returned", "settled"}
        assert all(stage["exact"] for stage in latency["stages"])
        until_sent = latency["stages"][: hops.index("sent") + 1]
        assert abs(sum(stage["ms"] for stage in until_sent) - latency["host_ms"]) < 1e-3
        text = shown(made, monkeypatch, capsys, "show", view.id)
        assert "slowest" in text
        assert "received to first byte out" in text
