"""The whole service on a journal in PostgreSQL."""

import asyncio

import pytest
from private_files import write_private_file
from service import PARTICIPANT, fill, linked, service, until_words, words

from bridge.app import Host, Role, Running
from bridge.sandbox import Knobs

LEASES = "SELECT lease FROM leases WHERE owner <> ''"


@pytest.fixture
async def database(cluster):
    name = cluster.lend()
    yield name
    cluster.give_back(name)


def in_postgres(cluster, database, directory):
    """The part of bridge.yaml that names the database, with its password beside it."""
    write_private_file(directory / "pg-password", cluster.password)
    there = {
        "host": str(cluster.directory),
        "database": database,
        "user": "smp",
        "password": {"file": "../pg-password"},
    }
    return {"journal": {"postgres": there, "anchor": "../anchor.json", "archive": "../archive"}}


async def test_records_go_out_and_come_back(tmp_path, cluster, database):
    """Quiet and loaded, units that wait for assets, and an orderly stop that gives every lease back."""
    async with service(tmp_path, host=in_postgres(cluster, database, tmp_path)) as made:
        ems = await linked(made)
        places = fill(ems, 60)
        ems.request("assets", places[0])
        await until_words(ems, places, {3: 1, None: 59})
        for place in places[1:]:
            ems.request("assets", place)
        await until_words(ems, places, {3: 60})
        ems.put("U", reference="UNIT00001", kw=10, assets=("BESS00001", "BESS00060"))
        ems.request("unit", "U")
        await until_words(ems, ["U"], {3: 1})
        created = [key for one in made.ledger.of("asset.create") for key in one.references]
        assert sorted(created) == sorted(f"BESS{number:05}" for number in range(1, 61))
        await made.stop()
        assert cluster.rows(LEASES, database=database) == []
        assert (tmp_path / "anchor.json").exists()


async def test_lost_process_is_succeeded_when_its_leases_run_out(tmp_path, cluster, database):
    """It leaves its leases behind; the next one stands by until they are free, and goes on where it stood."""
    knobs = Knobs(returns="hold")
    async with service(tmp_path, host=in_postgres(cluster, database, tmp_path), knobs=knobs) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await made.until_states("AWAITING_RETURN")
        await made.kill()
        began = asyncio.get_running_loop().time()  # of the two seconds too
        cluster.admin(
            "UPDATE smp_bridge.leases SET owner = 'one that died',"
            " expires_ns = (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint + 2000000000",
            database=database,
        )
        await made.start()
        assert asyncio.get_running_loop().time() - began > 1.5
        await made.release()
        await until_words(ems, places, {3: 3})
        assert len(made.ledger.of("asset.create")) == 1


async def test_field_and_market_apart(tmp_path, cluster, database):
    """Two hosts on one database: each hears of the other's commits."""
    async with service(tmp_path, host=in_postgres(cluster, database, tmp_path)) as made:
        await made.stop()
        made.role = Role.MARKET
        await made.start()
        field = Running()
        task = made._group.create_task(Host(made.config(), clock=made.clock, role=Role.FIELD).run(field))
        async with asyncio.timeout(30):
            await field.ready.wait()
        ems = await linked(made)
        places = fill(ems, 10)
        for place in places:
            ems.request("assets", place)
        await until_words(ems, places, {3: 10})
        assert {row[0] for row in cluster.rows(LEASES, database=database)} >= {"field:north", f"market:{PARTICIPANT}"}
        field.stop.set()
        async with asyncio.timeout(30):
            await task


async def test_server_restarted_under_a_working_service(tmp_path, cluster, database):
    """It is away for a moment while records come in: they wait, the host lives on, nothing is lost and nothing is created twice."""
    async with service(tmp_path, host=in_postgres(cluster, database, tmp_path)) as made:
        ems = await linked(made)
        places = fill(ems, 30)
        ems.request("assets", *places[:10])
        await until_words(ems, places, {3: 10, None: 20})
        cluster.stop()
        for place in places[10:20]:
            ems.request("assets", place)
        await asyncio.sleep(0.5)
        assert words(ems, places) == {3: 10, None: 20}
        cluster.start()
        ems.request("assets", *places[20:])
        await until_words(ems, places, {3: 30})
        created = [key for one in made.ledger.of("asset.create") for key in one.references]
        assert sorted(created) == sorted(f"BESS{number:05}" for number in range(1, 31))
