"""`smp-bridge browse` on node-opcua, mosquitto and libmodbus: what is there, and drafts of site files that `check` accepts."""

import shutil
from pathlib import Path

import pytest
import pytest_asyncio
from opcua_peer import PASSWORD, USER
from probe_world import ASSET_TOPIC, BASE, STRIDE, probe_world
from ruamel.yaml import YAML

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with probe_world(tmp_path_factory.mktemp("browse")) as made:
        await made.fresh()
        yield made


@pytest.fixture
def config(world, tmp_path):
    """A configuration of the test's own, to write drafts into."""
    return Path(shutil.copytree(world.config, tmp_path / "config"))


async def complaints(world, config, site, draft):
    """What `check` says of this draft alone; the keys of this configuration are placeholders, its site is none."""
    for file in (config / "sites").iterdir():
        file.unlink()
    (config / "sites" / f"{site}.yaml").write_text(draft)
    examined = await world.command("check", "--config", config)
    lines = [line for line in examined.err.splitlines() if f"{site}.yaml" in line]
    return [line for line in lines if "PLACEHOLDER" not in line]


def let_in(world):
    """How a person is let in at the command line."""
    peer = world.opcua
    return (
        "--certificate", peer.client.certificate, "--key", peer.client.private_key, "--trust", peer.own.certificate,
        "--user", USER, "--password-env", "SMP_BRIDGE_IPSWICH_PASSWORD",
    )  # fmt: skip


async def test_the_tree(world):
    """Each node with its path, type, value and right; the password comes from the environment."""
    said = await world.command("browse", world.opcua.url, *let_in(world), "--json")
    assert (said.code, said.err) == (0, "")
    rows = {row["PATH"]: row for row in said.json["rows"]}
    row = rows["Objects/ems:EMS/ems:Assets/ems:BESS001/ems:MaxExport_kW"]
    assert (row["CLASS"], row["TYPE"], row["VALUE"], row["ACCESS"]) == ("Variable", "Int32", 49500, "r")
    assert rows["Objects/ems:EMS/ems:Assets/ems:BESS001/ems:Registration/ems:State"]["ACCESS"] == "rw"
    assert not [path for path in rows if path.startswith("Objects/Server")]
    assert (await world.written())[0] == []


async def test_a_draft_that_check_accepts(world, config):
    """Objects that are alike become a flow by glob, with trigger and outcome; guesses are marked; `check` takes it, and a probe reads by it."""
    said = await world.command(
        "browse", world.opcua.url, *let_in(world), "--as", "site", "--site", "leeds", "--participant", "acme-test"
    )
    assert (said.code, said.err) == (0, "")
    assert PASSWORD not in said.out
    assert "PLACEHOLDER" in said.out
    draft = YAML(typ="safe").load(said.out)
    assert draft["adapters"]["ems"]["security"]["password"] == {"env": "SMP_BRIDGE_IPSWICH_PASSWORD"}
    flow = draft["flows"]["assets"]
    assert flow["records"]["each"] == "Objects/ems:EMS/ems:Assets/ems:*"
    assert flow["submit"] == {
        "when": "request",
        "request": "Registration/Request",
        "sequence": "Registration/RequestSeq",
    }
    assert flow["outcome"]["state"] == "Registration/State"
    assert flow["records"]["key"] == "asset_reference"
    assert flow["payload"]["assetReference"] == "asset_reference"
    assert flow["payload"]["postcode"] == "postcode"
    assert draft["flows"]["units"]["operation"] == "unit.create"
    assert await complaints(world, config, "leeds", said.out) == []
    checked = await world.command("probe", "--config", config, "--json", "--wait", 0.3)
    assert checked.code in {0, 1}, checked.err
    [adapter] = checked.json["adapters"]
    assert {each["place"] for each in adapter["values"]} >= {"BESS001", "BESS002", "BESS003", "UNIT01"}


async def test_a_call_that_is_wrong(world):
    """No protection unless that is said; a scheme that nobody has."""
    said = await world.command("browse", world.opcua.url)
    assert said.code == 2
    assert "--policy None" in " ".join(said.err.replace("│", " ").split())
    said = await world.command("browse", "gopher://there")
    assert said.code == 2
    assert "opc.tcp://" in said.err


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (["--policy", "none"], "--policy must be 'Basic256Sha256', 'Aes128Sha256RsaOaep', 'Aes256Sha256RsaPss' or 'None'; did you mean None?"),
        (["--certificate", "/there/is/none", "--key", "/there/is/none"], "--certificate names no file that is there; --key names no file"),
        (["--certificate", __file__], "needs --certificate and --key of this host"),
        (["--policy", "None", "--trust", "/there/is/none", "--mode", "Sign"], "leave --trust, --mode out, or choose a policy"),
    ],
)  # fmt: skip
async def test_options_of_the_call_are_told_by_their_names(world, call, text):
    """Not by those of a site file that nobody wrote, and not in a library's words."""
    said = await world.command("browse", "opc.tcp://127.0.0.1:1", *call)
    assert said.code == 2
    assert text in " ".join(said.err.replace("│", " ").split())


async def test_the_topics_of_a_site(world, config):
    """With the credentials and the authority of the site; retained topics with kind and fields; nobody published, the host's own status topic included."""
    before = [message.topic for message in world.heard.messages]
    said = await world.command("browse", "--site", "crawley", "--config", config, "--wait", 0.5, "--json")
    assert (said.code, said.err) == (0, "")
    rows = {row["TOPIC"]: row for row in said.json["rows"]}
    row = rows[ASSET_TOPIC.format("EV1")]
    assert (row["RETAINED"], row["KIND"]) == ("yes", "JSON")
    assert row["FIELDS"] == ["name", "mpan", "postcode", "gspGroup", "kw"]
    await world.settled()
    assert [message.topic for message in world.heard.messages] == [*before, "tests/settled"]


async def test_a_draft_of_topics_that_check_accepts(world, config):
    """The level that varies is the asset, members of JSON are fields, a password stays where it comes from; a probe reads by it."""
    said = await world.command("browse", "--site", "crawley", "--config", config, "--wait", 0.5, "--as", "site")
    assert (said.code, said.err) == (0, "")
    draft = YAML(typ="safe").load(said.out)
    flow = next(each for each in draft["flows"].values() if each["operation"] == "asset.create")
    assert flow["records"]["each"] == ASSET_TOPIC.format("{asset}")
    assert flow["payload"]["assetName"] == "name"
    assert isinstance(draft["adapters"]["broker"]["password"], dict)
    assert await complaints(world, config, "crawley", said.out) == []
    checked = await world.command("probe", "--config", config, "--json", "--wait", 0.5)
    assert checked.code in {0, 1}, checked.err
    [adapter] = checked.json["adapters"]
    assert {each["place"] for each in adapter["values"]} >= {"EV1", "EV2"}


async def test_stated_registers_of_a_site(world, config):
    """A scan of what was stated, with the site's own connection; a draft that `check` accepts; not one write reached the device."""
    before = (await world.written())[1]
    where = ("--site", "rugby", "--config", config, "--range", f"holding:{BASE}-{BASE + 2 * STRIDE - 1}")
    said = await world.command("browse", *where, "--json")
    assert (said.code, said.err) == (0, "")
    assert {"North Yard Battery 001", "1012345678903"} <= {row["VALUE"] for row in said.json["rows"]}
    said = await world.command("browse", *where, "--as", "site")
    assert (said.code, said.err) == (0, "")
    draft = YAML(typ="safe").load(said.out)
    assert draft["flows"]["holding"]["records"]["each"] == {"base": BASE, "stride": STRIDE, "count": 2}
    assert await complaints(world, config, "rugby", said.out) == []
    said = await world.command("browse", f"modbus://127.0.0.1:{world.modbus.port}")
    assert said.code == 2
    assert "--range holding:0-199" in " ".join(said.err.replace("│", " ").split())
    assert (await world.written())[1] == before
