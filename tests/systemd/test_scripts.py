"""install.sh and uninstall.sh from their first line to their last: every command that they call is a stand-in that keeps a record, the files are real."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {"/etc", "/opt", "/var"}
RECORD = '#!/bin/sh\nprintf \'%s\\n\' "${0##*/} $*" >>"$CALLS"\n'
# Each answers as the real one does, as far as the scripts look at it.
STANDINS = {
    "id": "#!/bin/sh\necho 0\n",
    "systemd-sysusers": RECORD,
    "systemd-tmpfiles": RECORD,
    "systemctl": RECORD + 'if [ "$1" = list-units ] && [ -f "$UNITS/${5##*.}" ]; then cat "$UNITS/${5##*.}"; fi\n',
    "python3": RECORD + '[ "$1 $2" = "-m venv" ] || exit 9\nmkdir -p "$3/bin"\ncp "$STANDINS/pip" "$3/bin/pip"\ncp "$STANDINS/python3" "$3/bin/python"\n',
    "pip": (
        '#!/bin/sh\nprintf \'%s\\n\' "$0 $*" >>"$CALLS"\n'
        '[ -z "$REFUSED" ] || case "$*" in *"$REFUSED"*) echo "THESE PACKAGES DO NOT MATCH THE HASHES" >&2; exit 1 ;; esac\n'
        'while [ $# -gt 0 ]; do if [ "$1" = --wheel-dir ]; then : >"$2/smp_bridge-0.1.0-py3-none-any.whl"; fi; shift; done\n'
    ),
}  # fmt: skip
UNITS = ["smp-bridge.service", "smp-bridge.socket", "smp-bridge@.service", "smp-bridge@.socket"]
INSTALLED = {
    *(f"etc/systemd/system/{unit}" for unit in UNITS),
    *("etc/sysusers.d/smp-bridge.conf", "etc/tmpfiles.d/smp-bridge.conf"),
    *(f"opt/smp-bridge/{name}" for name in ("README.md", "serial.conf", "credentials.conf")),
    *("opt/smp-bridge/venv/bin/python", "opt/smp-bridge/venv/bin/pip"),
}  # fmt: skip
VENV = "/opt/smp-bridge/venv"
BUILD = [
    "python3 -m venv BUILDING/venv",
    "BUILDING/venv/bin/pip install --quiet --require-hashes --requirement SOURCE/locks/build.txt",
    "BUILDING/venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir BUILDING SOURCE",
]
WHEEL = (
    f"{VENV}/bin/pip install --quiet --no-deps --no-index --force-reinstall BUILDING/smp_bridge-0.1.0-py3-none-any.whl"
)
SYSTEM = [
    "systemd-sysusers /etc/sysusers.d/smp-bridge.conf",
    "systemd-tmpfiles --create /etc/tmpfiles.d/smp-bridge.conf",
    "systemctl daemon-reload",
]


def locked(*sets):
    """The call that installs these locks into the service's own environment."""
    files = " ".join(f"--requirement SOURCE/locks/{name}.txt" for name in ("runtime", *sets))
    return f"{VENV}/bin/pip install --quiet --require-hashes {files}"


class Machine:
    """A machine below a directory: a checkout whose two scripts name its own /etc, /opt and /var there and are otherwise as shipped."""

    def __init__(self, directory):
        self.root, self.source, self.building = directory / "root", directory / "source", directory / "tmp"
        self.standins, self.calls, self.units = directory / "bin", directory / "calls", directory / "units"
        for made in (self.root, self.source, self.building, self.standins, self.units):
            made.mkdir()
        shutil.copytree(ROOT / "systemd", self.source / "systemd")
        shutil.copytree(ROOT / "locks", self.source / "locks")
        shutil.copy(ROOT / "README.md", self.source)
        for name in ("install.sh", "uninstall.sh"):
            script = self.source / "systemd" / name
            text = script.read_text()
            assert set(re.findall(r'(?:^|[\s="]|\$root)(/\w+)/', text)) <= PLACES, "and nothing of the real machine"
            script.write_text(re.sub(r"/(?=(?:etc|opt|var)/)", f"{self.root}/", text))
        for name, text in STANDINS.items():
            (self.standins / name).write_text(text)
            (self.standins / name).chmod(0o755)

    def run(self, name, *arguments, refused=""):
        """The status, the calls in their order, and what it complained of."""
        self.calls.write_text("")
        environment = {
            "PATH": f"{self.standins}:{os.environ['PATH']}", "TMPDIR": str(self.building), "CALLS": str(self.calls),
            "UNITS": str(self.units), "STANDINS": str(self.standins), "REFUSED": refused,
        }  # fmt: skip
        told = subprocess.run(
            ["sh", self.source / "systemd" / name, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert list(self.building.iterdir()) == [], "what the wheel was built in stays behind"
        return told.returncode, [self._plain(line) for line in self.calls.read_text().splitlines()], told.stderr

    def _plain(self, line):
        line = re.sub(rf"{re.escape(str(self.building))}/tmp\.\w+", "BUILDING", line)
        return line.replace(str(self.source), "SOURCE").replace(str(self.root), "")

    def put(self, path, text="the operator's"):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def files(self):
        """Everything but directories: content and mode, or where a link leads to."""
        return {
            str(path.relative_to(self.root)): os.readlink(path) if path.is_symlink() else (path.read_bytes(), path.stat().st_mode)
            for path in self.root.rglob("*") if path.is_symlink() or path.is_file()
        }  # fmt: skip


MINE = ("etc/smp-bridge/bridge.yaml", "etc/smp-bridge/keys/acme.pem", "var/lib/smp-bridge/journal.db", "var/lib/smp-bridge.anchor/journal.db.json", "etc/systemd/system/smp-bridge.service.d/credentials.conf")  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    """With what an operator wrote already."""
    made = Machine(tmp_path)
    for path in MINE:
        made.put(path)
    return made


def test_installed_twice_then_removed_twice(machine):
    """The first run makes the environment from the locks alone and tells systemd; the second is an upgrade in the same environment and changes no file; then sockets are stopped before services, and nothing but the operator's own stays."""
    before = machine.files()
    first = [f"python3 -m venv {VENV}", *BUILD, locked("serial", "hsm"), WHEEL, *SYSTEM]
    assert machine.run("install.sh", "--extras", "serial,hsm") == (0, first, "")
    installed = machine.files()
    assert set(installed) == INSTALLED | set(before)
    assert {path: installed[path] for path in before} == before
    for unit in UNITS:
        assert installed[f"etc/systemd/system/{unit}"] == ((ROOT / "systemd" / unit).read_bytes(), 0o100644)
    machine.put("opt/smp-bridge/venv/lib/kept", "the environment is the same one")
    assert machine.run("install.sh", "--extras", "serial,hsm") == (0, first[1:], "")
    assert {path: held for path, held in machine.files().items() if not path.endswith("/kept")} == installed

    (machine.units / "socket").write_text("smp-bridge.socket loaded active listening The returns listener\n")
    (machine.units / "service").write_text("smp-bridge.service loaded active running SMP bridge\nsmp-bridge@acme.service loaded active running SMP bridge\n")  # fmt: skip
    link = (
        machine.root / "etc/systemd/system/multi-user.target.wants/smp-bridge@idle.service"
    )  # enabled, and not loaded
    link.parent.mkdir()
    link.symlink_to("/etc/systemd/system/smp-bridge@.service")
    other = link.with_name("another.service")
    other.symlink_to("/etc/systemd/system/another.service")
    status, calls, complaint = machine.run("uninstall.sh")
    assert (status, complaint) == (0, "")
    assert calls == [
        "systemctl list-units --all --plain --no-legend smp-bridge.socket smp-bridge@*.socket",
        "systemctl disable --now smp-bridge.socket",
        "systemctl list-units --all --plain --no-legend smp-bridge.service smp-bridge@*.service",
        "systemctl disable --now smp-bridge.service",
        "systemctl disable --now smp-bridge@acme.service",
        "systemctl daemon-reload",
    ]
    kept = machine.files()
    assert set(kept) == set(before) | {str(other.relative_to(machine.root))}
    assert {path: kept[path] for path in before} == before
    assert not (machine.root / "opt/smp-bridge/venv").exists()

    for file in machine.units.iterdir():
        file.unlink()
    status, calls, complaint = machine.run("uninstall.sh")
    assert (status, [call for call in calls if "list-units" not in call], complaint) == (0, ["systemctl daemon-reload"], "")  # fmt: skip
    assert machine.files() == kept


@pytest.mark.parametrize("refused", ["locks/build.txt", "locks/runtime.txt"])
def test_a_package_with_another_hash_installs_nothing(machine, refused):
    """pip refuses it: the script ends there, no unit is written and systemd is told nothing."""
    before = machine.files()
    status, calls, complaint = machine.run("install.sh", refused=refused)
    assert status == 1
    assert "DO NOT MATCH THE HASHES" in complaint
    assert refused in calls[-1]
    assert [call for call in calls if call.startswith("system")] == []
    assert {path for path in machine.files() if "/venv/" not in path} == set(before)
    assert machine.run("install.sh")[0] == 0, "and the next run makes up for it"
    assert set(machine.files()) == INSTALLED | set(before)


def test_files_only_leaves_the_environment_alone(machine):
    """No environment is made and no package installed; systemd is told as ever."""
    assert machine.run("install.sh", "--files-only") == (0, SYSTEM, "")
    assert set(machine.files()) == {path for path in INSTALLED if "/venv/" not in path} | set(MINE)


def test_an_unknown_extra_is_refused_before_anything_is_made(machine):
    """Status 2 and the word; no call, no file."""
    before = machine.files()
    status, calls, complaint = machine.run("install.sh", "--extras", "serial,tls")
    assert (status, calls) == (2, [])
    assert "unknown extra tls" in complaint
    assert machine.files() == before


@pytest.mark.parametrize("name", ["install.sh", "uninstall.sh"])
def test_who_is_not_root_is_told(machine, name):
    """Status 1 with what would be right, and nothing is called or changed."""
    (machine.standins / "id").write_text("#!/bin/sh\necho 1000\n")
    before = machine.files()
    status, calls, complaint = machine.run(name)
    assert (status, calls) == (1, [])
    assert "must be run as root" in complaint
    assert machine.files() == before
