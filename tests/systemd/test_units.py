"""The shipped units: understood by systemd, tightly shut, and installed and removed without touching what is the operator's."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.app import DRAIN_S
from bridge.cli import EXIT_USAGE
from bridge.systemd import LISTENERS
from bridge.web.public import Bounds

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "systemd"
SCRIPT = Path(sys.executable).with_name("smp-bridge")
UNITS = ["smp-bridge.service", "smp-bridge@acme.service"]
LARGEST_EXPOSURE = 1.5


def analyze(directory, *arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments], env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:", "SYSTEMD_COLORS": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


DROPINS = ("serial.conf", "credentials.conf")


@pytest.fixture(params=["plain", *DROPINS])
def units(request, tmp_path):
    """A copy whose ExecStart is the script that is installed here; with each of the shipped drop-ins and without."""
    for unit in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.socket")):
        text = unit.read_text().replace("/opt/smp-bridge/venv/bin/smp-bridge", str(SCRIPT))
        (tmp_path / unit.name).write_text(text)
        instance = unit.name.replace("@.", "@acme.")
        (tmp_path / instance).write_text(text)
        if request.param in DROPINS and unit.suffix == ".service":
            (tmp_path / f"{instance}.d").mkdir()
            shutil.copy(SYSTEMD / request.param, tmp_path / f"{instance}.d" / request.param)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_the_service_is_shut_tightly(units, unit):
    """`systemd-analyze security` tells an exposure of 1.5 or less, with serial ports or credentials as well."""
    told = analyze(units, "security", "--offline=true", "--no-pager", "--threshold=100", str(units / unit))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert exposure, told
    assert float(exposure[1]) <= LARGEST_EXPOSURE, told.stdout


@pytest.mark.parametrize("unit", [*UNITS, "smp-bridge.socket", "smp-bridge@acme.socket"])
def test_systemd_understands_every_line(units, unit):
    """`systemd-analyze verify` has nothing to say."""
    told = analyze(units, "verify", "--man=no", str(units / unit))
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["smp-bridge.service", "smp-bridge@.service"])
def test_the_unit_knows_the_service(unit):
    """Killed only after the drain's deadline, and not started again over a configuration that is wrong."""
    text = (SYSTEMD / unit).read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1]) >= 2 * DRAIN_S
    assert f"RestartPreventExitStatus={EXIT_USAGE}\n" in text


SERVICES = ("smp-bridge.service", "smp-bridge@.service")


def settings(unit):
    """The lines of a unit or drop-in, by their names."""
    lines = [
        line.partition("=") for line in (SYSTEMD / unit).read_text().splitlines() if "=" in line and line[0] != "#"
    ]
    return {name: [value for known, _, value in lines if known == name] for name, _, _ in lines}


def test_a_serial_port_opens_nothing_else():
    """The drop-in takes back none of the unit's own directives: the devices of the machine stay hidden but for those that it names."""
    assert set(settings("serial.conf")) == {"BindPaths", "DeviceAllow", "SupplementaryGroups"}
    assert all(settings(unit)["PrivateDevices"] == ["yes"] for unit in SERVICES)


def test_credentials_open_nothing_at_all():
    """The drop-in takes back none of the unit's own directives: it names secrets by files of root's, and no secret itself (`SetCredential=`)."""
    given = settings("credentials.conf")
    assert set(given) == {"LoadCredential"}
    named = dict(line.split(":") for line in given["LoadCredential"])
    assert len(named) == len(given["LoadCredential"])
    assert all(file == f"/etc/credstore/smp-bridge/{name}" for name, file in named.items())
    documented = (ROOT / "docs/systemd.md").read_text()
    assert "{credential: smp-password}" in documented
    assert "/run/credentials/smp-bridge.service/signing-key" in documented
    assert set(named) == {"smp-password", "signing-key"}  # the names that the document speaks of


@pytest.mark.parametrize("unit", SERVICES)
def test_the_ceilings(unit):
    """Memory, tasks and descriptors are bounded, more descriptors than the listener's connections may be; no core of a process with keys."""
    given = settings(unit)
    assert (given["MemoryHigh"], given["MemoryMax"], given["LimitCORE"]) == (["1536M"], ["2G"], ["0"])
    assert int(given["TasksMax"][0]) <= 512
    assert int(given["LimitNOFILE"][0]) > 4 * Bounds().in_all


@pytest.mark.parametrize("unit", SERVICES)
def test_what_the_service_and_systemd_tell_each_other(unit):
    """Readiness and liveness by the main process alone, SIGHUP for a reload, ended by SIGTERM: what `bridge.systemd` and `run` speak."""
    given = settings(unit)
    told = {"Type": "notify", "NotifyAccess": "main", "WatchdogSec": "30", "ExecReload": "/bin/kill -HUP $MAINPID", "KillSignal": "SIGTERM", "Restart": "on-failure"}  # fmt: skip
    assert {name: given[name] for name in told} == {name: [value] for name, value in told.items()}


@pytest.mark.parametrize(("unit", "service"), [("smp-bridge.socket", "smp-bridge.service"), ("smp-bridge@.socket", "smp-bridge@.service")])  # fmt: skip
def test_a_port_below_1024_is_systemds(unit, service):
    """The service has no capability for one: the socket of the same name opens it, under a name that the service knows."""
    given = settings(unit)
    assert int(given["ListenStream"][0]) < 1024
    assert given["FileDescriptorName"][0] in LISTENERS
    assert (SYSTEMD / service).exists()
    assert settings(service)["CapabilityBoundingSet"] == [""]


def test_the_user_and_the_directories(tmp_path):
    """systemd's own tools make them below a root of our own: a user without a shell, and a place for keys that others cannot read."""
    (tmp_path / "etc").mkdir()
    if os.getuid() == 0:  # these two want to be root
        run = [["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "sysusers.conf"], ["systemd-tmpfiles", f"--root={tmp_path}", "--create", SYSTEMD / "tmpfiles.conf"]]  # fmt: skip
        for command in [*run, *run]:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert told.returncode == 0, told.stderr
        [user] = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("smp-bridge:")]  # fmt: skip
        assert user[5:] == ["/var/lib/smp-bridge", "/usr/sbin/nologin"]
        for directory in ("etc/smp-bridge", "etc/smp-bridge/keys"):
            found = (tmp_path / directory).stat()
            assert (oct(found.st_mode & 0o777), found.st_uid, found.st_gid) == ("0o750", 0, int(user[3]))
    assert [line.split()[0] for line in (SYSTEMD / "tmpfiles.conf").read_text().splitlines() if line[0] != "#"] == ["d", "d"]  # fmt: skip


def tree(root):
    return {
        path.relative_to(root): (path.read_bytes(), path.stat().st_mode) for path in root.rglob("*") if path.is_file()
    }


def script(name, *arguments):
    return subprocess.run(["sh", SYSTEMD / name, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_installed_twice_and_removed(tmp_path):
    """The second run changes nothing; what the operator wrote outlives both scripts."""
    mine = [tmp_path / "etc/smp-bridge/bridge.yaml", tmp_path / "var/lib/smp-bridge/journal.db", tmp_path / "etc/systemd/system/smp-bridge.service.d/own.conf"]  # fmt: skip
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("the operator's")
    before = tree(tmp_path)
    assert script("install.sh", "--root", tmp_path).returncode == 0
    installed = tree(tmp_path)
    assert {path.name for path in installed} >= {"smp-bridge.service", "smp-bridge@.service", "smp-bridge.socket", "smp-bridge@.socket", *DROPINS, "smp-bridge.conf"}  # fmt: skip
    assert script("install.sh", "--root", tmp_path).returncode == 0
    assert tree(tmp_path) == installed
    for _ in range(2):
        removed = script("uninstall.sh", "--root", tmp_path)
        assert removed.returncode == 0, removed.stderr
        assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["install.sh", "uninstall.sh"])
def test_a_word_that_is_unknown_changes_nothing(name):
    """Status 2 and the word."""
    told = script(name, "--rooot")
    assert told.returncode == 2
    assert "--rooot" in told.stderr
