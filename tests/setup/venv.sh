#!/bin/sh
# Make the virtual environment of the checkout: venv.sh PYTHON DIRECTORY demo|dev
set -eu
python=$1 venv=$2 kind=$3
command -v "$python" >/dev/null 2>&1 || { echo "smp-bridge needs Python 3.11 or newer, and '$python' was not found. On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "smp-bridge needs Python 3.11 or newer; '$python' is $("$python" -V). Name another one with: make PYTHON=python3.12" >&2; exit 1; }
if [ ! -x "$venv/bin/pip" ]; then
    echo "Making the virtual environment $venv ..."
    rm -rf "$venv"
    "$python" -m venv "$venv" >/dev/null 2>&1 || { rm -rf "$venv"
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null && "$python" -m venv "$venv"
        else
            echo "Python's venv module is missing. On Debian, please run: sudo apt-get install python3-venv" >&2; exit 1
        fi; }
fi
echo "Installing the Python packages ($kind); the first time this takes a minute ..."
# Only what is locked, each file by its hash (locks/, `make lock`); then the checkout itself, which needs nothing that is not there by now.
sets='runtime demo build'
[ "$kind" = demo ] || sets="$sets serial postgres tracing hsm dev"
locks=
for set in $sets; do locks="$locks --requirement locks/$set.txt"; done
# shellcheck disable=SC2086
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes $locks
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
