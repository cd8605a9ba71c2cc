"""kill -9: whenever the process dies, every record that was requested is created once, refused, or in doubt."""

import asyncio
import sys
from random import Random

import pytest
from kill_points import POINTS
from kill_rounds import PROFILE, PROMPT, RANDOM, ROUNDS, SURE, Fates, Rounds, plan
from kill_world import PREFIXES, SUPPORT, refused, world

OPEN_SENDS = 0.7  # the share of the rounds in which a send is under way when the process dies


def pytest_generate_tests(metafunc):
    """One test for each world; a world has so many rounds on one journal."""
    if "number" in metafunc.fixturenames:
        rounds = metafunc.config.getoption("--fault-rounds")
        metafunc.parametrize("number", range(max(1, -(-rounds // ROUNDS))))


async def test_every_moment_has_its_seam():
    """A function of the product that is renamed or gone is told here, by name, and not by a moment that never comes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kill_child", "--seams", cwd=SUPPORT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.decode().split() == [point.name for point in POINTS]
    assert len(POINTS) >= 12


@pytest.mark.timeout(600)
async def test_killed_at_every_stage(tmp_path, table, request, number):
    """Three EMSs ask, SMP answers late, twice, early or never, and the bridge dies at every named moment and at random ones."""
    option = request.config.getoption
    names = [name for name in option("--fault-points").split(",") if name]
    random = Random(f"{option('--fault-seed')}/{number}")
    points = plan(random, names, min(ROUNDS, option("--fault-rounds")))
    knobs = {**PROMPT, **SURE, "refuse": refusals(6 * len(points))}
    async with world(tmp_path, places=5 * len(points) + 8, slots=3 * len(points) + 8, knobs=knobs, **PROFILE) as made:
        rounds = Rounds(made, random)
        for point in points:
            await rounds.one(point)
        fates = await rounds.settle()
        told = [fates.told[reference] for reference, fate in fates.of.items() if fate in {Fates.LOST, Fates.TWICE}]
        print("\n".join(told))
        table.add(*(fates.row(point, made.concurrency) for point in (*POINTS, RANDOM) if point in points))
        assert (await made.ems.order("raised"))["waiting"] == 0
        requested = (await made.ems.order("shown"))["requested"]
        assert requested == sum(len(one.references) for one in rounds.rounds)
    if not names:
        sends = sum(bool(one.on_its_way) for one in rounds.rounds)
        assert max(len(one.on_its_way) for one in rounds.rounds) == made.concurrency, (
            "no kill met all sends that are allowed"
        )
        assert sends >= OPEN_SENDS * len(points), f"a send was under way in {sends} of {len(points)} rounds"


def refusals(most: int) -> dict[str, dict[str, str]]:
    references = [f"{prefix}{number:05}" for prefix in PREFIXES for number in range(1, most)]
    return {reference: {"code": "E77"} for reference in references if refused(reference)}
