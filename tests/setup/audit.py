"""Ask a public database for known vulnerabilities of everything that is locked; `make audit`.

Ends with 0 when there are none, 1 when there are (each is printed), 3 when the database did not answer. Options are pip-audit's own.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pins import LOCKS, SETS

VULNERABLE, NO_ANSWER = 1, 3


def asked(options):
    """What pip-audit says of each locked package, as its JSON; None with its complaint on standard error when it could not ask."""
    requirements = [part for name in SETS for part in ("--requirement", LOCKS / f"{name}.txt")]
    if "--requirement" in options:
        requirements = []
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        options = [
            "--require-hashes",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "--format",
            "json",
            "--output",
            out,
            *options,
        ]
        ran = subprocess.run(
            [sys.executable, "-m", "pip_audit", *requirements, *options], capture_output=True, text=True, check=False
        )
        if out.exists():
            return json.loads(out.read_text())
    sys.stderr.write(ran.stderr[-2000:])
    return None


def main():
    """Print what is vulnerable."""
    found = asked(sys.argv[1:])
    if found is None:
        print(
            "audit.py: the database of vulnerabilities did not answer, so nothing is known. Try again where there is a network.",
            file=sys.stderr,
        )
        return NO_ANSWER
    for package in found["dependencies"]:
        if "skip_reason" in package:
            print(f"{package['name']}: not looked at, {package['skip_reason']}")
    bad = [package for package in found["dependencies"] if package.get("vulns")]
    for package in bad:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(
                f"{package['name']} {package['version']}: {one['id']} ({', '.join(one['aliases']) or 'no other name'}), fixed in {fixed}"
            )
    print(f"audit.py: {len(found['dependencies'])} packages, {len(bad)} vulnerable")
    return VULNERABLE if bad else 0


if __name__ == "__main__":
    sys.exit(main())
