"""What comes back from SMP: early, twice, late, unknown, contradicting; pushed or polled."""

import asyncio

from service import PARTICIPANT, every_profile, fill, linked, made_alarm, service, until_words

from bridge.market.pace import Pace
from bridge.sandbox import Fault, Knobs


async def until_returned(made, *words):
    """Wait until our end point answered the pushes as `stored` or `repeated`, in this order."""
    ack = made.sandbox_profile.spec.ack
    statuses = [{"stored": ack.status, "repeated": ack.duplicate_status}[word] for word in words]
    async with asyncio.timeout(10):
        while [entry.status for entry in made.ledger.returns] != statuses:
            await asyncio.sleep(0.02)


@every_profile
async def test_a_return_before_the_answer(tmp_path, profile):
    """It overtakes the answer to its own call: it is kept, answered 202, and settles the call once its transaction id is known."""
    async with service(tmp_path, profile=profile, knobs=Knobs(return_early=True, answer_delay_s=0.3)) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        await made.until_states("CONFIRMED")
        await until_returned(made, "stored")


@every_profile
async def test_a_return_before_an_answer_that_refuses_the_call(tmp_path, profile):
    """SMP registers, returns that, and answers 422: the signed return counts, nothing is sent again, and a person hears of it."""
    fault = Fault(operation="asset.create", status=422, process=True)
    async with service(tmp_path, profile=profile, knobs=Knobs(return_early=True, faults=[fault])) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        await made_alarm(made, "CONFLICT")
        await made.until_states("CONFIRMED")
        assert [entry.status for entry in made.ledger.of("asset.create")] == [422]
        alarms = [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]
        assert (alarms, (await made.read(lambda journal: journal.counts()))["returns.parked"]) == (["CONFLICT"], 0)


@every_profile
async def test_a_return_twice(tmp_path, profile):
    """The repeat gets 200 and has no second effect, although it is signed anew."""
    async with service(tmp_path, profile=profile, knobs=Knobs(return_twice=True)) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        await until_returned(made, "stored", "repeated")
        await made.until_states("CONFIRMED")


async def test_a_return_after_the_poll_has_settled_it(tmp_path):
    """The status call came first; the late return agrees, is stored, and changes nothing."""
    async with service(tmp_path, knobs=Knobs(returns="never")) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await made.until_states("CONFIRMED")
        [transaction] = made.sandbox.register.transactions.values()
        await made.sandbox._sender.push(transaction)
        await until_returned(made, "stored")
        assert await made.states() == ["CONFIRMED"]
        assert not [alarm for alarm in await made.read(lambda journal: journal.alarms()) if alarm.code == "CONFLICT"]


async def test_a_return_that_contradicts_what_is_settled(tmp_path):
    """Registered, then said to be refused: 202, stored, an alarm, the state kept."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        [transaction] = made.sandbox.register.transactions.values()
        transaction.refused, transaction.created = 2, []
        transaction.errors = made.sandbox.register._errors(transaction, 0, {}) * 1
        await made.sandbox._sender.push(transaction)
        await until_returned(made, "stored", "stored")
        await made_alarm(made, "CONFLICT")
        assert await made.states() == ["CONFIRMED"]
        assert [ems.last(place) for place in places] == [3, 3]


async def test_a_return_of_an_unknown_transaction(tmp_path):
    """Validly signed, about nothing that we sent: 202 and an orphan; nobody's state moves."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await made.until_states("CONFIRMED")
        [transaction] = made.sandbox.register.transactions.values()
        transaction.id = "a0B" + "x" * 15
        transaction.message = type(transaction.message)(
            **{
                **{name: getattr(transaction.message, name) for name in transaction.message.__slots__},
                "message_id": "0" * 32,
                "correlation_id": "not-ours",
            }
        )
        await made.sandbox._sender.push(transaction)
        await until_returned(made, "stored", "stored")
        assert await made.states() == ["CONFIRMED"]


@every_profile
async def test_polling_needs_no_listener(tmp_path, profile):
    """`returns: poll`: no inbound port at all, the outcomes come by status calls."""
    align = {"returns": "poll", "align_by": "reference"}
    async with service(tmp_path, profile=profile, changes=align, listener=False) as made:
        assert made.running.returns_port == 0
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        assert made.ledger.of("transaction.status")
        assert made.ledger.returns == []


async def test_an_unknown_status_word_keeps_polling_and_alarms(tmp_path):
    """A word that the profile does not map settles nothing; once a known one comes, all is well."""
    async with service(tmp_path, knobs=Knobs(returns="never", unknown_word="SIDEWAYS")) as made:
        ems = await linked(made)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await made_alarm(made, "STATUS_WORD")
        assert await made.states() == ["AWAITING_RETURN"]
        made.knobs.unknown_word = ""
        await until_words(ems, places, {3: 1})


async def test_an_unknown_result_word_registers_nobody(tmp_path):
    """A return whose result is a word that the profile does not map: each item unknown, whatever the batch semantics, and an alarm."""
    async with service(tmp_path, profile="odd", knobs=Knobs(unknown_word="SIDEWAYS")) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {6: 2})
        await made_alarm(made, "STATUS_WORD")
        await made.until_states("PARTIAL")


async def test_a_token_that_expires_is_renewed_once(tmp_path):
    """401: one renewal, the same bytes again; the second attempt is accepted and nothing is created twice."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await made.until_states("CONFIRMED")
        await until_returned(made, "stored")
        made.sandbox.accounts.expire()
        places = fill(ems, 1, first=2)
        ems.request("assets", *places, sequence="2")
        await until_words(ems, places, {3: 1})
        entries = made.ledger.of("asset.create")
        assert [entry.status for entry in entries] == [202, 401, 202]
        assert made.sandbox.accounts.logins == 2


async def test_a_refusal_after_a_fresh_token_opens_the_circuit(tmp_path, monkeypatch):
    """401 twice: nothing is burnt, the circuit opens with an alarm, and the call leaves when it closes."""
    monkeypatch.setitem(Pace.__init__.__kwdefaults__, "circuit_s", (1.0,))  # five seconds prove no more
    faults = [Fault(operation="asset.create", status=401)] * 2
    async with service(tmp_path, knobs=Knobs(faults=faults)) as made:
        ems = await linked(made)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await made_alarm(made, "CIRCUIT_OPEN")
        await made.until_states("WAITING")
        await until_words(ems, places, {3: 1})
        assert made.ledger.creates("BESS00001") == 1
        assert made.ledger.of("asset.create")[-1].participant == PARTICIPANT
