"""What is installed: the lock agrees with pyproject.toml and is whole, the bill of materials is valid, the audit says what it found."""

import asyncio
import importlib.metadata as installed
import json
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import jsonschema_rs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SETUP = Path(__file__).parents[1] / "setup"
sys.path.insert(0, str(SETUP))

import pins  # noqa: E402 - only now it is found
import sbom  # noqa: E402

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")


def environment(python):
    """A Debian host with this Python."""
    return {
        "python_version": python, "python_full_version": f"{python}.2", "implementation_name": "cpython", "platform_python_implementation": "CPython",
        "sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64", "implementation_version": f"{python}.2",
    }  # fmt: skip


def asked(name):
    """What pyproject.toml asks for in a set."""
    content = tomllib.loads(pins.PYPROJECT.read_text())
    extras, groups, _ = pins.SETS[name]
    lines = [] if name == "build" else [*content["project"]["dependencies"]]
    lines += [line for extra in extras for line in content["project"]["optional-dependencies"][extra]]
    rest = list(groups)
    for group in rest:
        for line in content["dependency-groups"][group]:
            if isinstance(line, dict):
                rest.append(line["include-group"])
            else:
                lines.append(line)
    return [Requirement(line) for line in lines]


def wrong(wanted, locked):
    """What of these requirements the pins do not give."""
    return [str(one) for one in wanted if not any(one.specifier.contains(pin.version, prereleases=True) for pin in locked.get(canonicalize_name(one.name), ()))]  # fmt: skip


def for_python(name, python):
    """The pins of a set on such a host, by name."""
    found = {}
    for pin in pins.pins_of(name):
        if pin.holds(environment(python)):
            found.setdefault(pin.name, set()).add(pin)
    return found


def test_each_set_of_pyproject_has_a_lock():
    """An extra or a group that is new is locked too."""
    content = tomllib.loads(pins.PYPROJECT.read_text())
    extras = {extra for extras, _, _ in pins.SETS.values() for extra in extras}
    assert set(content["project"]["optional-dependencies"]) == extras
    assert set(content["dependency-groups"]) == {"build", "supply", "dev"}
    assert {file.stem for file in pins.LOCKS.glob("*")} == set(pins.SETS)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", pins.SETS)
def test_the_lock_gives_what_pyproject_asks_for(name, python):
    """Each requirement has one version that satisfies it; `make lock` after a change of pyproject.toml."""
    locked = for_python(name, python)
    wanted = [one for one in asked(name) if one.marker is None or one.marker.evaluate(environment(python))]
    assert wrong(wanted, locked) == []
    assert {known: {pin.version for pin in found} for known, found in locked.items() if len({pin.version for pin in found}) > 1} == {}  # fmt: skip


@pytest.mark.parametrize("name", pins.SETS)
def test_each_pin_has_hashes_and_no_place(name):
    """Nothing is taken by its name alone, nothing from a place that the lock names."""
    text = (pins.LOCKS / f"{name}.txt").read_text()
    assert all(pin.hashes for pin in pins.pins_of(name, alone=True))
    assert "://" not in text
    assert {line.split("=")[0] for line in text.splitlines() if line.lstrip().startswith("-")} == {"    --hash"}


def reached(name, locked):
    """The locked packages that the set's requirements lead to by what is installed here, and what they ask for that is not locked."""
    found, missing, rest = set(), [], [(one, frozenset(one.extras)) for one in asked(name)]
    seen = set()
    while rest:
        wanted, extras = rest.pop()
        key = canonicalize_name(wanted.name)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        found.add(key)
        missing += wrong([wanted], locked)
        for line in installed.requires(key) or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                rest.append((one, frozenset(one.extras)))
    return found, missing


def test_the_lock_is_whole_and_holds_nothing_else():
    """By the requirements of what is installed here: everything that a package needs is locked, and everything that is locked is needed."""
    here = {pin.name: {pin} for pin in pins.pins_of("dev") if pin.holds(None)}
    found, missing = reached("dev", here)
    assert missing == []
    assert set(here) - found == set()


def test_a_line_that_is_no_pin_is_refused():
    """Neither a place nor an option slips through the reader."""
    for line in (
        "aiohttp>=3",
        "aiohttp==1 --index-url x",
        "-e .",
        "aiohttp @ file:///x",
        "aiohttp==1 \\\n    --hash=md5:00",
    ):
        with pytest.raises(ValueError, match="no pin"):
            pins.read_pins(line + "\n")


def test_no_file_names_a_registry():
    """Whoever installs says where from; the lock's hashes say what."""
    hosts = re.compile("|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs")))
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    files = [ROOT / name for name in listed if not name.endswith((".png", ".zip", ".db"))]
    assert [str(file) for file in files if file.is_file() and hosts.search(file.read_text(errors="replace"))] == []


# ------------------------------------------------------------------------------------------------- the bill of materials


def cyclonedx_schema():
    """The schema that the library brings along, with the two that it refers to."""
    folder = resources.files("cyclonedx.schema") / "_res"
    names = ("bom-1.6", "spdx", "jsf-0.82")
    schemas = [json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text()) for name in names]
    registry = jsonschema_rs.Registry(
        [
            (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", schema)
            for name, schema in zip(names, schemas, strict=True)
        ]
    )
    return jsonschema_rs.Draft7Validator(schemas[0], registry=registry, validate_formats=True)


def test_the_bill_of_materials(tmp_path):
    """Valid CycloneDX 1.6; each package of the service and its extras with hashes and a licence; the tree leads from the service to each of them."""
    out = tmp_path / "bill.json"
    ran = subprocess.run([sys.executable, SETUP / "sbom.py", out], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    text = out.read_text()
    bill = json.loads(text)
    assert [str(error)[:300] for error in cyclonedx_schema().iter_errors(bill)] == []
    assert not cyclonedx_schema().is_valid({**bill, "components": [{"name": "of no type"}]})
    parts = {part["name"]: part for part in bill["components"]}
    runtime = {pin.name for pin in pins.pins_of("runtime") if pin.holds(None)}
    extras = {pin.name for extra in pins.EXTRAS for pin in pins.pins_of(extra) if pin.holds(None)}
    assert {name for name, part in parts.items() if part["scope"] == "required"} == runtime
    assert set(parts) == runtime | extras
    for part in parts.values():
        assert part["licenses"], part["name"]
        [files] = part["externalReferences"]
        assert {entry["alg"] for entry in files["hashes"]} == {"SHA-256"}
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    assert any("/yarl@" in ref for ref in needs[parts["aiohttp"]["bom-ref"]])
    assert not any("/yarl@" in ref for ref in needs["smp-bridge"])
    found, rest = set(), ["smp-bridge"]
    while rest:
        rest += [ref for ref in needs[rest.pop()] if ref not in found and not found.add(ref)]
    assert found == {part["bom-ref"] for part in parts.values()}
    assert sbom.bom().serial_number.urn == bill["serialNumber"], "the same lock makes the same bill"


# ------------------------------------------------------------------------------------------------------------- the audit


async def audited(tmp_path, url):
    """The audit of one package at a database of our own."""
    lock = tmp_path / "lock.txt"
    lock.write_text(pins.Pin("pyjwt", "2.15.1", "", ("0" * 64,)).lines())
    command = [sys.executable, SETUP / "audit.py", "--requirement", lock, "--vulnerability-service", "osv", "--osv-url", url, "--timeout", "5", "--cache-dir", tmp_path]  # fmt: skip
    ran = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, complaint = await ran.communicate()
    return ran.returncode, out.decode(), complaint.decode()


@pytest.mark.parametrize("what", [pytest.param("nothing", marks=pytest.mark.long), "something", "nobody"])
async def test_the_audit(tmp_path, what):
    """0 and the count, 1 and the name of what is vulnerable, 3 and a clear word when nobody answers."""
    hole = {"id": "CVE-2026-1", "aliases": ["GHSA-x"], "summary": "s", "affected": [{"package": {"name": "pyjwt", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.16"}]}]}]}  # fmt: skip

    async def answer(request):
        return web.json_response({"vulns": [hole]} if what == "something" else {})

    app = web.Application()
    app.router.add_post("/v1/query", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/v1/query"))
        if what == "nobody":
            await server.close()
        status, out, complaint = await audited(tmp_path, url)
    if what == "nobody":
        assert (status, out) == (3, "")
        assert "did not answer" in complaint
    else:
        assert status == (1 if what == "something" else 0), complaint
        assert ("CVE-2026-1" in out and "fixed in 2.16" in out) == (what == "something")
        assert out.endswith(f"1 packages, {1 if what == 'something' else 0} vulnerable\n")
