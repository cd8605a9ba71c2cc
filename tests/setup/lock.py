"""Write `locks/*.txt` anew from pyproject.toml, for Python 3.11 and newer: versions and the hashes of their files, chosen by uv. Needs the network; `make lock`.

`--keep` keeps the versions that are locked and fit, and changes what pyproject.toml asks for; without it every package is brought up to date.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from pins import LOCKS, PYPROJECT, ROOT, SETS, read_pins

OLDEST = "3.11"
HEAD = """\
# Made from pyproject.toml by `make lock`; do not edit. Each line is one package and the SHA-256 of every file of that version.
"""


def resolved(extras, groups, *, into, constraint=None):
    """What uv chooses for these; `into` may hold earlier choices, which are kept where they fit."""
    asked = [] if groups == ("build",) else [str(PYPROJECT)]
    asked += [part for extra in extras for part in ("--extra", extra)]
    asked += [part for group in groups for part in ("--group", f"{PYPROJECT}:{group}")]
    asked += [] if constraint is None else ["--constraint", str(constraint)]
    options = [
        "--universal",
        "--python-version",
        OLDEST,
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--no-config",
    ]
    uv = Path(sys.executable).with_name("uv")
    ran = subprocess.run([uv, "pip", "compile", *options, *asked, "--output-file", into], cwd=ROOT, check=False)
    if ran.returncode:
        sys.exit("lock.py: uv found no set of packages that fits (above); the former lock stands")
    return read_pins(into.read_text())


def main():
    """Resolve everything once, then each set within that, and write what each adds to those below it."""
    keep = "--keep" in sys.argv[1:]
    extras, groups, _ = SETS["dev"]
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory) / "whole.txt"
        if keep:
            whole.write_text("".join(path.read_text() for path in sorted(LOCKS.glob("*.txt"))))
        resolved(extras, groups, into=whole)
        made = {}
        for name, (extras_, groups_, _) in SETS.items():
            into = Path(directory) / f"{name}.txt"
            made[name] = resolved(extras_, groups_, into=into, constraint=whole)
    LOCKS.mkdir(exist_ok=True)
    for name, (_, _, below) in SETS.items():
        known = {pin for each in below for pin in made[each]}
        (LOCKS / f"{name}.txt").write_text(HEAD + "".join(pin.lines() for pin in made[name] if pin not in known))
    print(f"lock.py: {len({pin.name for pin in made['dev']})} packages; now `make test`, and commit locks/")


if __name__ == "__main__":
    main()
