"""Processes of the bridge that refuse to start, and the row of a world of processes in which everything was registered after all."""

from fault_table import Row


def registered(made, fault, *sites, rounds=1, recovery_s=0.0):
    """A row of a world of processes: each asset of these sites, or of all, is registered there and created once."""
    rows = [
        (item.state, made.sandbox.ledger.creates(item.reference))
        for site in sites or made.ems
        for item in made.ems[site].items().values()
    ]
    return Row(
        fault=fault, rounds=rounds, requested=len(rows), accepted_once=rows.count(("registered", 1)),
        lost=sum(word != "registered" for word, _ in rows), twice=sum(count > 1 for _, count in rows), recovery_s=recovery_s,
    )  # fmt: skip


async def ended(made, *arguments):
    """What a process that refuses to start ends with."""
    process = await made.run(*arguments)
    return await process.ended(30), process


def refused(end, *texts, what=""):
    """Status 1, the texts and a hint on standard error, and no traceback."""
    code, process = end
    said = "\n".join(str(event.get("event", "")) + str(event.get("trace", "")) for event in process.events)
    assert code == 1, f"{what}: {code} {said}"
    assert "Traceback" not in said, what
    assert "hint:" in said, what
    for text in texts:
        assert text in said, what
