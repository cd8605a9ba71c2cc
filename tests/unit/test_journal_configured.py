"""The journal that the configuration names, a file or a database: opened, looked at, told where it is."""

import itertools
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.config.host import JournalOptions, PostgresOptions
from bridge.errors import ConfigError, JournalUnusable
from bridge.journal import configured
from bridge.journal.configured import (
    journal_exists,
    journal_file,
    journal_place,
    open_configured_journal,
    open_configured_reader,
)
from bridge.secret import Secret

CLOCK = SystemClock.here()
IDS = itertools.count(1)


def in_file(directory: Path, cluster) -> JournalOptions:
    return JournalOptions(path=directory / "var/journal.db")


def in_database(directory: Path, cluster) -> JournalOptions:
    there = PostgresOptions(
        host=str(cluster.directory), database=cluster.fresh(), user="smp", password=Secret(cluster.password)
    )
    return JournalOptions(postgres=there, anchor=directory / "anchor.json", archive=directory / "archive")


@pytest.fixture(params=[in_file, in_database], ids=["file", "database"])
def options(request, tmp_path, cluster) -> JournalOptions:
    return request.param(tmp_path, cluster)


async def opened(options: JournalOptions):
    return await open_configured_journal(options, clock=CLOCK, role="all", new_id=lambda: f"s{next(IDS)}")


async def test_it_is_made_by_the_service_and_not_by_those_who_look(options):
    """Nobody who only reads makes one; what the service wrote is read."""
    assert not await journal_exists(options)
    with pytest.raises(JournalUnusable, match="there is no journal") as refused:
        await open_configured_reader(options)
    assert refused.value.hint
    assert not await journal_exists(options)
    journal = await opened(options)
    await journal.acquire("field:s")
    await journal.alarm("X", text="seen")
    assert await journal_exists(options)
    reader = await open_configured_reader(options)
    assert [alarm.text for alarm in await reader.alarms()] == ["seen"]
    await reader.close()
    await journal.close()


def test_what_is_for_files_says_so(tmp_path, cluster):
    """A database has means of its own; where it is, is told without its password."""
    assert journal_file(in_file(tmp_path, cluster)) == tmp_path / "var/journal.db"
    options = in_database(tmp_path, cluster)
    with pytest.raises(ConfigError, match="for a journal in a file") as refused:
        journal_file(options)
    assert "pg_dump" in refused.value.hint
    assert str(cluster.directory) in journal_place(options)
    assert cluster.password not in f"{journal_place(options)} {refused.value}"


async def test_a_database_without_its_package_is_told(tmp_path, cluster, monkeypatch):
    """The hint names the extra."""
    monkeypatch.setattr(configured, "find_spec", lambda name: None)
    options = in_database(tmp_path, cluster)
    for asking in (opened(options), open_configured_reader(options), journal_exists(options)):
        with pytest.raises(JournalUnusable, match="psycopg") as refused:
            await asking
        assert "smp-bridge[postgres]" in refused.value.hint
