"""A command imports what it needs itself, and the list of commands nothing: seen in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cli.lazy import COMMANDS, imported

ROOT = Path(__file__).parents[2]
LIBRARIES = {"aiohttp", "apsw", "asyncua", "cryptography", "jwt", "paho", "pymodbus", "ruamel"}
CODE = """
import json, os, sys
from bridge.cli import app
os.dup2(2, 1)
told = []
for arguments in json.loads(sys.argv[1]):
    status = app(arguments, standalone_mode=False)
    told.append([status, sorted({name.partition('.')[0] for name in sys.modules} | {name for name in sys.modules if name.startswith('bridge.')})])
print(json.dumps(told), file=os.fdopen(int(sys.argv[2]), 'w'))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_each_command_says_of_itself(name):
    """Its name, and the first sentence of its own help."""
    command = imported(name)
    assert command.name == name
    assert command.help.split("\n\n")[0] == COMMANDS[name].help


def test_a_command_imports_what_it_needs(tmp_path):
    """One after the other in one process, the lightest first: the list, help of a group, bytes decoded, a configuration checked."""
    asked = [["--help"], ["jws", "--help"], ["decode", "--type", "float32", "4246", "0000"]]
    helped, group, decoded = _modules(tmp_path, asked)
    assert not helped & (LIBRARIES | {"pydantic", "yaml", "bridge.api", "bridge.config", "bridge.cli.decode"})
    assert "bridge.cli.jws" in group
    assert "bridge.cli.decode" not in group
    assert not decoded & (LIBRARIES - {"cryptography", "jwt"})  # these two were the group's
    (decoded,) = _modules(tmp_path, asked[2:])
    assert "adapters" in decoded
    assert not decoded & LIBRARIES


def test_a_check_loads_no_library_of_a_protocol(tmp_path):
    """It reads what the adapters say of their options, and keys; it connects to nobody."""
    (checked,) = _modules(tmp_path, [["check", "--config", str(ROOT / "config")]])
    assert {"adapters", "cryptography"} <= checked
    assert not checked & (LIBRARIES - {"cryptography", "jwt"})


def _modules(tmp_path, asked):
    """What was imported when each of these commands had ended."""
    told = tmp_path / "told.json"
    with told.open("w") as out:
        command = [sys.executable, "-c", CODE, json.dumps(asked), str(out.fileno())]
        subprocess.run(command, pass_fds=[out.fileno()], check=True, cwd=ROOT, capture_output=True)
    return [set(modules) for _, modules in json.loads(told.read_text())]
