"""Lives of a whole service among servers that ask for passwords: what they refuse, what they take and what crashes is searched as test_secrets.py does it."""

import asyncio
import json
import logging
import traceback
from contextlib import AsyncExitStack

import pytest
from leaks import asked, hearing, leaked, planted_there, shown
from mosquitto import Peer, mosquitto
from mqtt_site import ASSET as REGISTRATION
from mqtt_site import CRAWLEY, REQUEST, RESULT, read_site, request
from opcua_peer import USER, opcua_peer
from opcua_site import IPSWICH
from otlp_collector import collector
from people import note, token, unpacked
from private_files import write_private_file
from quick_yaml import write_yaml
from service import PARTICIPANT, fill, linked, made_alarm, prepared, until_words
from softhsm import MODULE, PIN, logged_out
from three_sites import CHARGER

from bridge import tracing
from bridge.cli.evidence import _export
from bridge.clock import SystemClock
from bridge.envelope import Algorithm
from bridge.errors import BridgeError
from bridge.journal.export_plan import Scope
from bridge.keys import new_key, write_private
from bridge.market.client import SmpClient
from bridge.material import host_signer, our_signer
from bridge.web.roles import Role

SMP = {"the password of SMP": "s3cret-of-the-test"}
RIGHT = {"mqtt": "broker-2214-of-the-ems", "opcua": "server-6673-of-the-ems", "anchor": "broker-9051-of-the-anchor", "collector": "Bearer collector-7340-of-the-traces"}  # fmt: skip
WRONG = {"mqtt": "broker-1108-mistyped", "opcua": "server-5527-mistyped", "anchor": "broker-3946-mistyped", "collector": "Bearer collector-8265-mistyped"}  # fmt: skip
PAGES = ("/metrics", "/health/ready", "/api/v1/alarms", "/api/v1/submissions", "/")
STATE = "EMS/Assets/BESS001/Registration/State"


@pytest.fixture
def heard():
    with hearing() as handler:
        yield handler


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Traces are gathered and tried again soon."""
    monkeypatch.setattr(tracing, "GATHER_S", 0.02)
    monkeypatch.setattr(tracing, "DELAYS_S", (0.05,))


async def until(holds, within_s=30):
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.03)


async def until_heard(heard, *events):
    """Wait until each of these stands in a line of the log; an event is named by the parts of its line."""

    async def said():
        return all(any(all(part in line for part in parts) for line in heard.lines) for parts in events)

    try:
        await until(said)
    except TimeoutError:
        raise AssertionError(f"not all of {events} was said:\n{heard.text[-6000:]}") from None


def written(keys, secrets):
    for name, text in secrets.items():
        write_private_file(keys / name, text)


async def members(made):
    """A token that counts and one that does not."""
    good, text = await token(made, Role.OPERATOR, PARTICIPANT)
    lost, revoked = await token(made, Role.AUDITOR, PARTICIPANT)
    await note(made, good, lost)
    return text, revoked


async def exported(made, file):
    config = made.config()
    scope = Scope(participant=PARTICIPANT, from_ns=0, to_ns=SystemClock.here().wall_ns())
    await _export(config, scope, host_signer(config), file)
    return unpacked(file)


async def crashed(made, monkeypatch, place):
    """A defect of ours in the middle of a login ends the host, once there is something to send; what is printed of that."""

    async def boom(self, path, **more):
        raise RuntimeError(f"a defect at {path}")

    def boom_now(self, path, **more):
        raise RuntimeError(f"a defect at {path}")

    monkeypatch.setattr(SmpClient, "post", boom)
    monkeypatch.setattr(SmpClient, "begin", boom_now)
    ems = await linked(made)
    ems.request("assets", *fill(ems, 1, first=place))
    error = await made.crashed()
    logging.getLogger("bridge").error("crashed", exc_info=error)
    return "".join(traceback.format_exception(error)) + repr(error)


# --------------------------------------------------------------------------------------------- MQTT, OPC UA, a collector


async def two_users(directory, broker):
    """A password file of the broker's with the EMS's user and the anchor's; mosquitto.py leaves one that is there as it is."""
    for more, user, text in ((["-c"], "smp-bridge", broker["mqtt"]), ([], "anchor", broker["anchor"])):
        command = ["mosquitto_passwd", "-b", *more, str(directory / "passwords"), user, text]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0


def host_options(traces, broker, keys):
    """Of bridge.yaml: an anchor's topic and a collector, each behind a secret of its own."""
    place = {
        "broker": f"mqtts://127.0.0.1:{broker.port}", "ca": str(broker.ca), "topic": "host-1/anchor", "user": "anchor",
        "password": {"file": str(keys / "anchor")},
    }  # fmt: skip
    anchors = {"broker": {"mqtt": place, "every": "100ms", "alarm_after": "200ms"}}
    return {
        "host_key": str(keys / "host.pem"),
        "journal": {"path": "../var/journal.db", "seal_every": "50ms", "anchors": anchors},
        "tracing": {"endpoint": traces.url, "headers": {"Authorization": {"file": str(keys / "collector")}}},
    }  # fmt: skip


def write_sites(sites, keys, broker, opcua):
    """The shipped sites of Crawley and Ipswich, each with its flow of assets, on these servers."""
    crawley, ipswich = read_site(CRAWLEY), read_site(IPSWICH)
    crawley["adapters"]["broker"] |= {
        "host": broker.host, "port": broker.port, "tls": {"ca": str(broker.ca)}, "password": {"file": str(keys / "mqtt")}
    }  # fmt: skip
    security = {
        "certificate": str(opcua.client.certificate), "private_key": str(opcua.client.private_key), "user": USER,
        "server_certificates": [str(opcua.own.certificate)], "password": {"file": str(keys / "opcua")},
    }  # fmt: skip
    ipswich["adapters"]["ems"] |= {"url": opcua.url, "security": ipswich["adapters"]["ems"]["security"] | security}
    for site in (crawley, ipswich):
        del site["flows"]["unit"]
        write_yaml(sites / f"{site['site']}.yaml", site)


@pytest.mark.timeout(180)
async def test_nothing_of_a_life_among_servers_with_passwords_holds_one(tmp_path, heard, monkeypatch):
    """A broker, an OPC UA server, a collector of traces and an anchor's broker refuse wrong passwords, take the right ones and get their messages; then each of them meets a defect of ours."""
    out, keys = {}, tmp_path / "keys"
    planted = SMP | {f"{word} one of {name}": text for word, texts in (("the right", RIGHT), ("a wrong", WRONG)) for name, text in texts.items()}  # fmt: skip
    (tmp_path / "broker").mkdir()
    await two_users(tmp_path / "broker", RIGHT)
    async with AsyncExitStack() as stack:
        traces = await stack.enter_async_context(collector())
        broker = await stack.enter_async_context(mosquitto(tmp_path / "broker", tls=True, user="smp-bridge", password=RIGHT["mqtt"]))  # fmt: skip
        opcua = await stack.enter_async_context(opcua_peer(tmp_path))
        await opcua.layout(["BESS001"])
        await opcua.start(password=RIGHT["opcua"])
        ems = await stack.enter_async_context(Peer(broker))
        await ems.subscribe("#")
        await ems.publish(REGISTRATION.format("EV1"), CHARGER, retain=True)
        made = await stack.enter_async_context(prepared(tmp_path, host=host_options(traces, broker, keys)))
        write_private(keys / "host.pem", new_key(Algorithm.ES256))
        write_sites(tmp_path / "config/sites", keys, broker, opcua)

        written(keys, WRONG)
        traces.statuses = [401] * 1000
        config = made.config()
        planted_there("peers", config, SMP | {name: text for name, text in planted.items() if "wrong" in name})
        await made.start()
        good, revoked = await members(made)
        north = await linked(made)
        north.request("assets", *fill(north, 1))
        await until_words(north, ["B1"], {3: 1})
        lost = [("link_lost", "LinkRefused", site) for site in ("crawley", "ipswich")]
        await until_heard(heard, *lost, ("anchor_not_at_its_place",), ("traces_not_sent", "401"))
        await made_alarm(made, "LINK_REFUSED")
        out |= {f"{path} while all refuse": text for path, text in (await shown(made, good, PAGES)).items()}
        await made.stop()
        assert [message for message in ems.messages if message.topic == "host-1/anchor"] == []

        written(keys, RIGHT)
        traces.statuses = []
        config = made.config()
        planted_there("peers", config, SMP | {name: text for name, text in planted.items() if "right" in name})
        out["repr of the configuration"] = f"{config!r} {config} {config.host!r} {config.sites!r}"
        await made.start()
        await until_heard(heard, *(("link_open", f'"{site}"') for site in ("crawley", "ipswich")))
        await opcua.request("BESS001")
        await ems.publish(REQUEST.format("EV1"), request("r-1"))
        await ems.until(RESULT.format("EV1"))
        await ems.until("host-1/anchor")

        async def registered():
            results = [result["state"] for result in ems.on(RESULT.format("EV1"))]
            return await opcua.value(STATE) == 3 and "registered" in results

        await until(registered)
        await traces.until(lambda held: held.spans)
        assert traces.headers[-1]["authorization"] == RIGHT["collector"]
        out |= await asked(made, good, revoked)
        await made.stop()
        out["the export"] = await exported(made, tmp_path / "out.zip")
        out["the journal and its anchor"] = "".join(
            path.read_bytes().decode("latin-1") for path in tmp_path.glob("var*/**/*") if path.is_file()
        )

        def defect(*_):
            raise RuntimeError("a defect beside a password")

        monkeypatch.setattr("adapters.mqtt.client.Ahead.username_pw_set", defect)
        monkeypatch.setattr("adapters.opcua.channel.Client.set_password", defect)
        made.mortal = True
        await made.start()
        await until_heard(heard, *(("link_lost", "a defect beside", "Traceback", site) for site in ("crawley", "ipswich")))  # fmt: skip
        out["a crash"] = await crashed(made, monkeypatch, 2)
        out["the traces"] = b"".join(traces.bodies).decode("latin-1")
        out["what the broker was sent"] = "\n".join(
            f"{message.topic} {message.payload.decode('latin-1')}" for message in ems.messages
        )
        told = [await opcua.value(f"EMS/Assets/BESS001/Registration/{name}") for name in ("TransactionId", "ErrorText")]
        out["what the OPC UA server was told"] = json.dumps(told)
    out["the log"] = heard.text
    assert leaked(planted, out) == []


# ------------------------------------------------------------------------------------------- PostgreSQL, a hardware module


async def refused(made):
    """A start that fails; all that is printed of it."""
    made.mortal = True
    with pytest.raises((AssertionError, BridgeError)) as caught:
        await made.start()
    error, made.ended_by, made.mortal = made.ended_by or caught.value, None, False
    assert isinstance(error, BridgeError), error
    logging.getLogger("bridge").error("not started", exc_info=error)
    return f"{''.join(traceback.format_exception(error))} {error!r} {error.hint}"


@pytest.mark.timeout(180)
async def test_nothing_of_a_life_on_a_database_with_a_hardware_module_holds_a_secret(
    tmp_path, cluster, heard, monkeypatch
):
    """PostgreSQL refuses a wrong password, and the module a wrong PIN; with the right ones a call is signed and kept there; a crash in the end."""
    logged_out()
    out, keys, database = {}, tmp_path / "keys", cluster.lend()
    right = {"database": cluster.password, "pin": PIN}
    wrong = {"database": "database-4418-mistyped", "pin": "pin-2093-mistyped"}
    planted = SMP | {f"the {name}'s": text for name, text in right.items()}
    planted |= {f"a wrong one for the {name}": text for name, text in wrong.items()}
    there = {"host": str(cluster.directory), "database": database, "user": "smp", "password": {"file": str(keys / "database")}}  # fmt: skip
    host = {
        "host_key": str(keys / "host.pem"),
        "journal": {"postgres": there, "anchor": "../anchor.json", "archive": "../archive"},
    }
    hsm = {"module": str(MODULE), "token": "acme", "key": "sign-1", "pin": {"file": str(keys / "pin")}}
    async with prepared(tmp_path, host=host, entry={"hsm": hsm, "signing_key": None}) as made:
        write_private(keys / "host.pem", new_key(Algorithm.ES256))
        for name in right:
            written(keys, right | {name: wrong[name]})
            out[f"a start with a wrong one for the {name}"] = await refused(made)
        written(keys, right)
        config = made.config()
        planted_there("backends", config, planted)
        out["repr of the configuration"] = f"{config!r} {config} {config.host!r} {config.participants!r}"
        made.sandbox.accounts.know(PARTICIPANT, {"keys": [our_signer(config.participants[PARTICIPANT]).public_jwk()]})
        await made.start()
        good, revoked = await members(made)
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        out |= await asked(made, good, revoked)
        out["the database"] = str(cluster.rows("SELECT schema_to_xml('smp_bridge', true, false, '')::text", database=database))  # fmt: skip
        assert "BESS00001" in out["the database"]
        await made.stop()
        out["the export"] = await exported(made, tmp_path / "out.zip")
        made.mortal = True
        await made.start()
        out["a crash"] = await crashed(made, monkeypatch, 2)
    cluster.give_back(database)
    out["the log"] = heard.text
    assert leaked(planted, out) == []
