"""What only the PostgreSQL engine has: several processes at once, leases by the database's time, lost sessions and lost answers, its server's state."""

import asyncio
import dataclasses
import itertools
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import postgres
import psycopg
import pytest
import trustme
from postgres_tap import tapped

from bridge.clock import SystemClock
from bridge.errors import Fenced, JournalFull, JournalUnusable, LeaseHeld, Replaced
from bridge.journal.opening import MAJOR
from bridge.journal.pg_store import translate
from bridge.journal.port import AnswerNote, Candidate, DueCall, ItemOutcome, SignedCall
from bridge.journal.postgres import PostgresJournal, open_postgres, open_reader
from bridge.journal.sqlite import open_journal
from bridge.model import ItemState, Kind, Operation, Trigger
from bridge.secret import Secret
from bridge.submission import Admission, SubmissionState

CLOCK = SystemClock.here()
LIMIT_S = 60
BOTH = (Operation.ASSET_CREATE, Operation.UNIT_CREATE)
IDS = itertools.count(1)


def candidate(site: str, key: str, **changes) -> Candidate:
    values = {
        "site": site,
        "flow": "f",
        "place": key,
        "participant": "acme",
        "operation": Operation.ASSET_CREATE,
        "trigger": Trigger.CHANGE,
        "request": None,
        "key": key,
        "content": b"{}",
        "digest": b"0" * 16,
        "readings": b"readings",
    }
    return Candidate(**(values | changes))


def unit(site: str, key: str, *members: str) -> Candidate:
    return candidate(site, key, flow="u", operation=Operation.UNIT_CREATE, depends=members, max_items=1)


def call() -> SignedCall:
    number = next(IDS)
    return SignedCall(
        message_id=f"m{number}", correlation_id=f"c{number}", method="POST", path="/", headers={}, body=b"body", kid="k",
        profile="default",
    )  # fmt: skip


def new_id() -> str:
    return f"s{next(IDS)}"


class Journals:
    """Journals on one database, each with its own sessions, as several processes have them."""

    def __init__(self, cluster, database: str) -> None:
        self.cluster, self.database = cluster, database
        self.server = cluster.server(database)
        self._opened: list[PostgresJournal] = []

    async def open(self, role: str = "all", *, server=None, ids=new_id, **options) -> PostgresJournal:
        journal = await open_postgres(server or self.server, clock=CLOCK, role=role, new_id=ids, **options)
        self._opened.append(journal)
        return journal

    async def close(self) -> None:
        for journal in self._opened:
            await journal.close()

    def admin(self, *statements: str) -> None:
        self.cluster.admin(*statements, database=self.database)

    def rows(self, sql: str) -> list[tuple]:
        db = self.server.connect("look")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


@pytest.fixture
async def journals(cluster) -> AsyncIterator[Journals]:
    journals = Journals(cluster, cluster.lend())
    yield journals
    await journals.close()
    cluster.give_back(journals.database)


@pytest.fixture
async def empty(cluster) -> AsyncIterator[Journals]:
    """A database without a journal."""
    journals = Journals(cluster, cluster.fresh())
    yield journals
    await journals.close()


# ---------------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT a FROM t WHERE b = ? AND c = 'is it 100% (:so)?'", "SELECT a FROM t WHERE b = %s AND c = 'is it 100%% (:so)?'"),
        ("UPDATE t SET a = :a WHERE b = :b_2 AND a <> :a", "UPDATE t SET a = %(a)s WHERE b = %(b_2)s AND a <> %(a)s"),
        ("a IN (SELECT value FROM json_each(?))", "a IN (SELECT value FROM json_array_elements_text(%s::json))"),
        ("a IN (SELECT value FROM json_each(:l))", "a IN (SELECT value FROM json_array_elements_text(%(l)s::json))"),
        ("json_each(?) k CROSS JOIN t ON t.a = k.value ->> 0", "json_array_elements_text(%s::json) k JOIN t ON t.a = k.value::json ->> 0"),
        ("SELECT 'it''s' || ? % 2", "SELECT 'it''s' || %s %% 2"),
        ("SELECT now()::text", "SELECT now()::text"),
    ],
)  # fmt: skip
def test_statements_are_put_into_its_words(ours, theirs):
    """Placeholders, lists and joins; what stands in quotes stays."""
    assert translate(ours).sql.decode() == theirs


def test_lists_are_known_by_their_place_or_name():
    """So that only they are read as JSON."""
    assert translate("a = ? AND b IN (SELECT value FROM json_each(?)) AND c = ?").lists == {1}
    assert translate("a = :a AND b IN (SELECT value FROM json_each(:b))").lists == {"b"}


# ------------------------------------------------------------------------------------------------------------- opening


async def test_journal_is_made_by_whoever_comes_first(empty):
    """Several processes start on an empty database at the same moment: one makes the journal, all of them work."""
    opened = await asyncio.gather(*(empty.open(f"p{number}") for number in range(4)))
    for number, journal in enumerate(opened):
        await journal.acquire(f"field:s{number}")
    files = list((Path(__file__).parents[2] / "bridge/journal/schema/postgres").glob("*.sql"))
    assert empty.rows("SELECT major, minor FROM version") == [(MAJOR, len(files))]


def test_both_engines_have_the_same_migrations():
    """A schema change has its twin."""
    schema = Path(__file__).parents[2] / "bridge/journal/schema"
    names = {engine: sorted(file.name for file in (schema / engine).glob("*.sql")) for engine in ("sqlite", "postgres")}
    assert names["sqlite"] == names["postgres"]


async def test_both_engines_have_the_same_tables(journals, tmp_path):
    """Columns in their order, what may be null, and indexes: what a use case relies on is there."""
    made = await open_journal(tmp_path / "journal.db", clock=CLOCK, role="t", new_id=new_id)
    await made.close()
    db = apsw.Connection(str(tmp_path / "journal.db"))
    key = "(SELECT count(*) > 0 FROM pragma_table_info(m.name) k WHERE k.pk AND k.name = c.name)"
    columns = f"SELECT m.name, c.name, c.type, c.\"notnull\" OR {key} FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1, c.cid"
    kinds = {"INTEGER": "bigint", "TEXT": "text", "BLOB": "bytea"}
    theirs = [
        (table, column, kind, needed)
        for table, column, kind, needed in journals.rows(
            "SELECT table_name, column_name, data_type, CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END FROM information_schema.columns"
            " WHERE table_schema = 'smp_bridge' AND table_name <> 'version' ORDER BY table_name COLLATE \"C\", ordinal_position"
        )
    ]
    assert [(table, column, kinds[kind], needed) for table, column, kind, needed in db.execute(columns)] == theirs
    indexes = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    named = {row[0] for row in journals.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'smp_bridge'")}
    assert {row[0] for row in db.execute(indexes)} <= named
    db.close()


async def test_foreign_tables_are_refused_and_left_alone(empty):
    """Another program's schema of our name is not ours to migrate."""
    empty.admin("CREATE SCHEMA smp_bridge", "CREATE TABLE smp_bridge.theirs (x int)")
    for opening in (empty.open(), open_reader(empty.server)):
        with pytest.raises(JournalUnusable, match="not a journal of smp-bridge") as refused:
            await opening
        assert refused.value.hint
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'smp_bridge'"
    assert empty.rows(tables) == [("theirs",)]


async def test_newer_major_version_is_refused(empty):
    """By the service and by those who only look; both versions and what to do are named."""
    await empty.open()
    empty.admin(f"UPDATE smp_bridge.version SET major = {MAJOR + 1}")
    for opening in (empty.open(), open_reader(empty.server)):
        with pytest.raises(JournalUnusable, match=f"major version {MAJOR + 1}, this is {MAJOR}") as refused:
            await opening
        assert refused.value.hint


async def test_newer_minor_version_is_opened(empty):
    """Migrations only add: the version before may go on with a newer journal, and does not set it back."""
    await empty.open()
    empty.admin("UPDATE smp_bridge.version SET minor = 9000")
    journal = await empty.open()
    await journal.acquire("field:s")
    assert empty.rows("SELECT minor FROM version") == [(9000,)]


async def test_no_journal_cannot_be_looked_at(empty):
    """Whoever only reads makes none."""
    with pytest.raises(JournalUnusable, match="there is no journal") as refused:
        await open_reader(empty.server)
    assert refused.value.hint
    assert empty.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'smp_bridge'") == []


async def test_server_that_does_not_keep_its_word_is_refused(journals):
    """With fsync off a power cut loses what was acknowledged."""
    journals.admin("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        await until(lambda: journals.rows("SHOW fsync") == [("off",)])
        with pytest.raises(JournalUnusable, match="write through") as refused:
            await journals.open()
    finally:
        journals.admin("ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        await until(lambda: journals.rows("SHOW fsync") == [("on",)])
    assert "fsync" in refused.value.hint


async def test_each_commit_is_durable_whatever_the_server_was_set_to(journals):
    """The server of the tests answers before its disk has it; our sessions do not, also after a lost session."""
    assert journals.rows("SHOW synchronous_commit") == [("off",)]
    journal = await journals.open()
    ask = "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')"
    assert (await journal._writer.run(lambda tx: tx.one(ask))).value == ("on", "serializable")
    end_sessions(journals)
    assert (await journal._writer.run(lambda tx: tx.one(ask))).value == ("on", "serializable")


async def test_database_of_another_encoding_is_refused(cluster, journals):
    """Names of assets are Unicode."""
    journals.cluster.admin("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(JournalUnusable, match="UTF-8"):
        await journals.open(server=cluster.server("ascii"))
    journals.cluster.admin("DROP DATABASE ascii WITH (FORCE)")


# ------------------------------------------------------------------------------------------------------------- secrets


async def test_password_is_in_no_error_and_no_log(journals, caplog):
    """Neither a right nor a wrong one."""
    caplog.set_level(logging.DEBUG)
    wrong = dataclasses.replace(journals.server, password=Secret("not-the-password"))
    with pytest.raises(JournalUnusable) as refused:
        await journals.open(server=wrong)
    assert refused.value.hint
    journal = await journals.open()
    journals.cluster.stop()
    try:
        with pytest.raises(JournalUnusable) as gone:
            await journals.open()
    finally:
        journals.cluster.start()
    await journal.acquire("field:s")
    said = [
        repr(wrong),
        str(wrong),
        caplog.text,
        *(str(part) for error in (refused, gone) for part in chain(error.value)),
    ]
    assert not [text for text in said if "not-the-password" in text or journals.cluster.password in text]


def chain(error: BaseException | None) -> list[str]:
    """An error with what it came from."""
    return [str(error), repr(error), *chain(error.__cause__)] if error is not None else []


async def test_server_over_the_network_is_verified(tmp_path):
    """By the authority that is named, and by its name; without one by the system's. Nothing travels to another."""
    ours, others = trustme.CA(), trustme.CA()
    issued = ours.issue_cert("127.0.0.1")
    for name, authority in (("ours.pem", ours), ("others.pem", others)):
        (tmp_path / name).write_bytes(authority.cert_pem.bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster = postgres.Cluster()
    try:
        certificate = b"".join(part.bytes() for part in issued.cert_chain_pems)
        cluster.listen(port, certificate, issued.private_key_pem.bytes())
        cluster.start()
        there = cluster.server(cluster.fresh(), host="127.0.0.1", tls="verify-full", ca=tmp_path / "ours.pem")
        journals = Journals(cluster, there.database)
        journal = await journals.open(server=there)
        tls = (
            await journal._writer.run(
                lambda tx: tx.one("SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()")
            )
        ).value
        assert tls == (1,)
        await journals.close()
        for wrong in (
            dataclasses.replace(there, ca=tmp_path / "others.pem"),
            dataclasses.replace(there, ca=None),
            dataclasses.replace(there, host="localhost"),
        ):
            with pytest.raises(JournalUnusable, match="certificate") as refused:
                await journals.open(server=wrong)
            assert refused.value.hint
        with pytest.raises(JournalUnusable):
            await journals.open(server=dataclasses.replace(there, tls="disable"))
    finally:
        cluster.remove()


# ------------------------------------------------------------------------------------------------------ several owners


async def test_lease_is_taken_over_when_its_time_is_over(journals):
    """By the database's clock: refused before, a higher epoch after, and whoever had it is fenced."""
    first, second = await journals.open("first", lease_s=1.0), await journals.open("second", lease_s=1.0)
    fence = await first.acquire("field:s")
    with pytest.raises(LeaseHeld) as held:
        await second.acquire("field:s")
    assert "process" in str(held.value)
    assert "free in" in held.value.hint
    taken = await until_taken(second, "field:s")
    assert taken.epoch > fence.epoch
    with pytest.raises(Fenced):
        await first.accept(fence, [candidate("s", "A")])
    with pytest.raises(Fenced):
        await first.renew([fence])
    with pytest.raises(LeaseHeld):
        await first.acquire("field:s")
    await second.accept(taken, [candidate("s", "A")])


async def test_renewed_lease_is_kept(journals):
    """Longer than it was first taken for."""
    first, second = await journals.open("first", lease_s=1.5), await journals.open("second", lease_s=1.5)
    fence = await first.acquire("field:s")
    until_s = asyncio.get_running_loop().time() + 3.0
    while asyncio.get_running_loop().time() < until_s:
        await first.renew([fence])
        with pytest.raises(LeaseHeld):
            await second.acquire("field:s")
        await asyncio.sleep(0.1)
    await first.release([fence])
    assert (await second.acquire("field:s")).epoch > fence.epoch


async def test_whoever_stands_by_succeeds_at_once(journals):
    """A lease that is given back wakes the next process, which keeps its other leases meanwhile; one that is kept is refused in the end."""
    first, second = await journals.open("first"), await journals.open("second", lease_s=1.0, stand_by_s=LIMIT_S)
    other = await journals.open("other", stand_by_s=0.3)
    fence, own = await first.acquire("field:s"), await second.acquire("field:own")
    standing = asyncio.ensure_future(second.acquire("field:s"))
    for _ in range(4):
        with pytest.raises(LeaseHeld):
            await other.acquire("field:s")
    assert not standing.done()
    with pytest.raises(LeaseHeld):
        await other.acquire("field:own")
    await first.release([fence])
    async with asyncio.timeout(5):
        assert (await standing).epoch > fence.epoch
    await second.renew([own])


async def test_one_of_many_gets_a_lease(journals):
    """All ask at once for what nobody ever had."""
    asking = [await journals.open(f"p{number}") for number in range(5)]
    got = await asyncio.gather(*(journal.acquire("market:acme") for journal in asking), return_exceptions=True)
    assert sorted(type(one).__name__ for one in got) == ["Fence", *["LeaseHeld"] * 4]


async def test_one_reference_of_two_sites_is_created_once(journals):
    """Two processes ask for the same reference at the same moment: one is NEW, the other a duplicate, every time."""
    north, south = await journals.open("north"), await journals.open("south")
    fences = [await north.acquire("field:north"), await south.acquire("field:south")]
    for number in range(40):
        both = await asyncio.gather(
            north.accept(fences[0], [candidate("north", f"K{number}")]),
            south.accept(fences[1], [candidate("south", f"K{number}")]),
        )
        found = sorted(intake.accepted[0].admission.value for intake in both)
        assert found == sorted([Admission.NEW.value, Admission.DUPLICATE_KEY.value]), number


async def test_unit_never_waits_for_a_member_that_is_registered(journals):
    """One process takes the unit in while another settles its member: whoever comes second sees the first."""
    field, market = await journals.open("field"), await journals.open("market")
    north, south = await field.acquire("field:north"), await field.acquire("field:south")
    fence = await market.acquire("market:acme")
    for number in range(30):
        await field.accept(north, [candidate("north", f"A{number}")])
        due = await send(market, fence)
        done = ItemOutcome(item=due.items[0].id, state=ItemState.REGISTERED, asset_id="x")
        await asyncio.gather(
            field.accept(south, [unit("south", f"U{number}", f"A{number}")]),
            market.settle(fence, due.submission, SubmissionState.CONFIRMED, [done], cause="return"),
        )
        due = await send(market, fence)
        assert [item.key for item in due.items] == [f"U{number}"]
        done = ItemOutcome(item=due.items[0].id, state=ItemState.REGISTERED)
        await market.settle(fence, due.submission, SubmissionState.CONFIRMED, [done], cause="return")


async def test_successor_finds_every_call_of_the_one_before(journals):
    """A call that becomes SENDING while the lease is taken over is either refused or found in doubt by the successor, whoever is faster."""
    field, old, new = await journals.open("field"), await journals.open("old"), await journals.open("new")
    site = await field.acquire("field:s")
    for number in range(40):
        fence = await old.acquire("market:acme")
        await field.accept(site, [candidate("s", f"K{number}")])
        due = await old.next_call("acme", CLOCK.wall_ns(), allow=BOTH)
        assert isinstance(due, DueCall)
        journals.admin("UPDATE smp_bridge.leases SET expires_ns = 0 WHERE lease = 'market:acme'")

        async def take_over(wait_s: float):
            await asyncio.sleep(wait_s)
            taken = await new.acquire("market:acme")
            return taken, await new.recover(taken)

        sent, (taken, doubtful) = await asyncio.gather(
            old.sending(fence, due.submission, call(), 1), take_over(number % 8 / 1000), return_exceptions=True
        )
        assert isinstance(sent, Fenced) or list(doubtful) == [due.submission]
        if isinstance(sent, Fenced):
            assert not doubtful
            await send(new, taken)
        await new.release([taken])


async def test_frozen_neighbour_stands_in_nobodys_way(journals):
    """A process that stops in the middle of a transaction, with locks in its hand, is ended by the server after a few seconds."""
    journal = await journals.open()
    await journal.acquire("field:s")
    frozen = journals.server.connect("frozen")
    frozen.execute(f"BEGIN; SELECT pg_advisory_xact_lock_shared({journals.server.key})")
    frozen.execute("UPDATE leases SET expires_ns = expires_ns + 1")
    async with asyncio.timeout(LIMIT_S):
        await journal.acquire("field:s")
    with pytest.raises(psycopg.Error, match="idle-in-transaction"):
        frozen.execute("COMMIT")
    frozen.close()


async def test_process_that_was_frozen_in_the_middle_begins_again(journals):
    """The server ended its session meanwhile; the same work is done on a new one, once."""
    journal = await journals.open()
    tries = []

    def work(tx):
        tx.raise_alarm("X", text=f"try {len(tries)}")
        if not tries:
            tries.append(time.sleep(6))  # as if stopped
        tx.raise_alarm("X", text=f"try {len(tries)}")

    await journal._writer.run(work)
    assert journals.rows("SELECT text, count FROM alarms") == [("try 1", 2)]


async def test_everything_at_once(journals):
    """Three sites take records in, replace them and write back while the market sends and settles: each record goes out once and is told its outcome."""
    sites = ("north", "south", "east")
    fields = {site: await journals.open(site) for site in sites}
    fences = {site: await fields[site].acquire(f"field:{site}") for site in sites}
    market = await journals.open("market")
    fence = await market.acquire("market:acme")
    keys = {f"{site}-{number}" for site in sites for number in range(40)}
    sent: list[str] = []

    async def fill(site: str) -> None:
        for number in range(40):
            await fields[site].accept(fences[site], [candidate(site, f"{site}-{number}")])
            newer = candidate(site, f"{site}-{number}", content=b'{"new":1}', digest=b"1" * 16)
            await fields[site].accept(fences[site], [newer])

    async def drain() -> None:
        woken = market.woken("market:acme")
        while len(sent) < len(keys):
            due = await market.next_call("acme", CLOCK.wall_ns(), allow=BOTH)
            if not isinstance(due, DueCall):
                await woken.wait()
                woken.clear()
                continue
            try:
                await market.sending(fence, due.submission, call(), len(due.items))
            except Replaced:
                continue
            sent.extend(item.key for item in due.items)
            note = AnswerNote(status=202, headers={}, body=b"", detail="", transaction_id=f"T{due.submission}")
            await market.answered(fence, due.submission, SubmissionState.AWAITING_RETURN, note)
            done = [ItemOutcome(item=item.id, state=ItemState.REGISTERED, asset_id=f"a{item.id}") for item in due.items]
            await market.settle(fence, due.submission, SubmissionState.CONFIRMED, done, cause="return")

    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(drain(), *(fill(site) for site in sites))
    assert sorted(sent) == sorted(keys)
    for key in keys:
        assert (await market.member("acme", Kind.ASSET, key)).state is ItemState.REGISTERED
    for site in sites:
        due, _ = await fields[site].due_writebacks(site, ["f"], CLOCK.wall_ns(), 1000)
        assert len(due) == 40
    assert_without_holes(journals)


# ------------------------------------------------------------------------------------------------------ lost sessions


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_server_that_comes_back_is_used_again(journals, how):
    """What was acknowledged is there, calls made meanwhile wait and are done, and wake-ups go on."""
    journal, other = await journals.open("one"), await journals.open("other")
    fence = await journal.acquire("field:s")
    await journal.accept(fence, [candidate("s", "A")])
    woken = other.woken("market:acme")
    journals.cluster.stop(how)
    writing = asyncio.ensure_future(journal.accept(fence, [candidate("s", "B")]))
    reading = asyncio.ensure_future(other.counts())
    await asyncio.sleep(0.3)
    assert not writing.done()
    journals.cluster.start()
    async with asyncio.timeout(LIMIT_S):
        assert (await writing).accepted[0].admission is Admission.NEW
        assert (await reading)["submissions.WAITING"] == 1
        await woken.wait()  # after its own return at the latest
        await until(lambda: listeners(journals) == 2)
        woken.clear()
        await journal.accept(fence, [candidate("s", "C")])
        await woken.wait()
    due = await other.next_call("acme", CLOCK.wall_ns(), allow=BOTH)
    assert [item.key for item in due.items] == ["A", "B", "C"]
    assert_without_holes(journals)


async def test_server_that_stays_away_is_told(journals, monkeypatch):
    """The host stops with a hint rather than wait for ever."""
    monkeypatch.setattr("bridge.journal.pg_engine.PATIENCE_S", 0.3)
    journal = await journals.open()
    fence = await journal.acquire("field:s")
    journals.cluster.stop()
    try:
        for asking in (journal.accept(fence, [candidate("s", "A")]), journal.counts()):
            with pytest.raises(JournalUnusable) as gone:
                await asking
            assert gone.value.hint
    finally:
        journals.cluster.start()
    await journal.accept(fence, [candidate("s", "A")])


@pytest.mark.parametrize("at", [b"BEGIN", b"INSERT INTO submissions", b"INSERT INTO events", b"pg_notify"])
async def test_session_lost_before_the_commit_is_no_loss(journals, tmp_path, at):
    """The same work is done again on a new session, once."""
    async with tapped(tmp_path, journals.cluster.socket) as tap:
        server = dataclasses.replace(journals.server, host=str(tmp_path))
        journal = await journals.open(server=server)
        fence = await journal.acquire("field:s")
        tap.set(at, answered=False)
        await journal.accept(fence, [candidate("s", "A")])
        assert tap.sprung == 1
        await journal.close()
    assert journals.rows("SELECT count(*) FROM items") == [(1,)]
    assert_without_holes(journals)


@pytest.mark.parametrize("answered", [True, False], ids=["done", "never-heard"])
async def test_commit_without_an_answer_is_not_guessed(journals, tmp_path, answered):
    """The caller hears that nobody knows, the host stops, and its successor goes by what the journal holds."""
    async with tapped(tmp_path, journals.cluster.socket) as tap:
        server = dataclasses.replace(journals.server, host=str(tmp_path))
        journal = await journals.open(server=server)
        fence = await journal.acquire("field:s")
        tap.set(b"COMMIT", answered=answered)
        with pytest.raises(JournalUnusable, match="outcome is unknown") as unknown:
            await journal.accept(fence, [candidate("s", "A")])
        assert unknown.value.hint
        assert tap.sprung == 1
        await until(lambda: journals.rows("SELECT count(*) FROM items") == [(int(answered),)])
        again = await journal.accept(fence, [candidate("s", "A")])
        assert again.accepted[0].admission is (Admission.REPEAT if answered else Admission.NEW)
        await journal.close()
    assert journals.rows("SELECT count(*) FROM items") == [(1,)]
    assert_without_holes(journals)


# -------------------------------------------------------------------------------------------------- what a server says


async def test_full_disk_is_told_and_ends_by_itself(journals):
    """SQLSTATE 53100 means: stop acknowledging, and go on once there is room."""
    journal = await journals.open()
    fence = await journal.acquire("field:s")
    full = "CREATE FUNCTION full_disk() RETURNS trigger AS $$ BEGIN RAISE 'no space left' USING ERRCODE = '53100'; END $$ LANGUAGE plpgsql"
    journals.admin(full, "CREATE TRIGGER full_disk BEFORE INSERT ON smp_bridge.blobs EXECUTE FUNCTION full_disk()")
    try:
        many = [journal.accept(fence, [candidate("s", f"K{number}")]) for number in range(3)]
        for got in await asyncio.gather(*many, return_exceptions=True):
            assert isinstance(got, JournalFull)
            assert got.hint
    finally:
        journals.admin("DROP TRIGGER full_disk ON smp_bridge.blobs", "DROP FUNCTION full_disk")
    with pytest.raises(Fenced):  # rolled back as a whole: the alarm is still owed
        await journal.accept(fence._replace(epoch=fence.epoch + 1), [candidate("s", "K0")])
    assert await journal.alarm_codes("s", ["acme"]) == []
    await journal.accept(fence, [candidate("s", "K0")])
    assert await journal.alarm_codes("s", ["acme"]) == ["JOURNAL_FULL"]
    assert_without_holes(journals)


async def test_server_that_takes_no_writes_is_told(journals):
    """Such as a standby after a switch-over."""
    journal = await journals.open()
    await journal._writer.run(lambda tx: None)
    journal._writer._session.get().execute("SET default_transaction_read_only TO on")
    journal._writer._begin = journal._writer._begin.replace(b" READ WRITE", b"")
    with pytest.raises(JournalUnusable, match="takes no writes") as refused:
        await journal.acquire("field:s")
    assert "standby" in refused.value.hint


async def test_a_row_that_exists_twice_fails_alone(journals):
    """An own fault is no race: it is told after some tries, and its neighbours of the same commit stand."""
    journal = await journals.open(ids=lambda: "always-the-same")
    fence = await journal.acquire("field:s")
    work = [candidate("s", "A"), candidate("s", "B", flow="g"), candidate("s", "C")]
    got = await asyncio.gather(*(journal.accept(fence, [one]) for one in work), return_exceptions=True)
    assert [type(one).__name__ for one in got] == ["Intake", "JournalUnusable", "Intake"]
    assert journals.rows("SELECT key FROM items ORDER BY id") == [("A",), ("C",)]
    assert_without_holes(journals)


@pytest.mark.parametrize("mark", ["\0", "\ufdd0", "\ufdd1", "\ufdd1\ufdd0\0", "\ufdd0\ufdd1\ufdd1\0"])
async def test_text_that_it_cannot_hold_comes_back_whole(journals, mark):
    """PostgreSQL's text takes no NUL, and what stands in its place on disk may be a peer's too: they send what they like."""
    journal = await journals.open()
    fence, market = await journal.acquire("field:s"), await journal.acquire("market:acme")
    place, key, request = f"a{mark}b", f"k{mark}", f"r{mark}\\u0000"
    odd = candidate("s", key, place=place, trigger=Trigger.MESSAGE, request=request)
    first = await journal.accept(fence, [odd])
    again = await journal.accept(fence, [odd])
    other = await journal.accept(fence, [candidate("s", key, place=place, trigger=Trigger.MESSAGE, request="other")])
    found = [one.accepted[0].admission for one in (first, again, other)]
    assert found == [Admission.NEW, Admission.REPEAT, Admission.REPEAT]
    due = {row.outcome.request: row for row in (await journal.due_writebacks("s", ["f"], CLOCK.wall_ns(), 10))[0]}
    assert due.keys() == {request, "other"}
    assert (due[request].place, due[request].key) == (place, key)
    await journal.alarm("X", text=f"x{mark}y")
    assert [alarm.text for alarm in await journal.alarms()] == [f"x{mark}y"]
    sent = await send(journal, market, transaction_id=f"T{mark}")
    assert (await journal.find_submission("acme", transaction_id=f"T{mark}")).id == sent.submission
    told = (await journal.events(sent.submission))[-1].data
    assert told["transaction"] == f"T{mark}"


async def test_more_topics_than_a_message_holds_wake_everybody(journals):
    """Nobody is forgotten."""
    journal, other = await journals.open("one"), await journals.open("other")
    woken = other.woken("market:nobody-else")
    await journal._writer.run(lambda tx: tx.topics.update(f"market:participant-{number}" for number in range(1000)))
    async with asyncio.timeout(LIMIT_S):
        await woken.wait()


# -------------------------------------------------------------------------------------------------------------- helpers


async def send(journal: PostgresJournal, fence, *, transaction_id: str = "") -> DueCall:
    due = await journal.next_call("acme", CLOCK.wall_ns(), allow=BOTH)
    assert isinstance(due, DueCall), due
    await journal.sending(fence, due.submission, call(), len(due.items))
    note = AnswerNote(
        status=202, headers={}, body=b"", detail="", transaction_id=transaction_id or f"T{due.submission}"
    )
    await journal.answered(fence, due.submission, SubmissionState.AWAITING_RETURN, note)
    return due


async def until_taken(journal: PostgresJournal, lease: str):
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await journal.acquire(lease)
            except LeaseHeld:
                await asyncio.sleep(0.05)


async def until(holds) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.05)


def end_sessions(journals: Journals) -> None:
    journals.admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def listeners(journals: Journals) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'smp-bridge listen' AND query LIKE 'LISTEN%'"
    try:
        return journals.rows(sql)[0][0]
    except psycopg.OperationalError:
        return -1


def assert_without_holes(journals: Journals) -> None:
    sql = (
        "SELECT participant, writer, epoch FROM events GROUP BY participant, writer, epoch"
        " HAVING count(*) <> max(number) OR min(number) <> 1"
    )
    assert journals.rows(sql) == []
