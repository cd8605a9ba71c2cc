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
"$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
if [ "$kind" = dev ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[demo,sandbox]' --group dev
else
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[demo]'
fi
