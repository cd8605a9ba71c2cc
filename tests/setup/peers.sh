#!/bin/sh
# The peers that others wrote and the tests talk to: Debian packages, and npm packages beside the tests.
set -eu
missing=
need() { [ -e "$1" ] || command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
PATH="$PATH:/usr/sbin"
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
ldconfig -p 2>/dev/null | grep -q 'libmodbus\.so\.5' || /sbin/ldconfig -p 2>/dev/null | grep -q 'libmodbus\.so\.5' || missing="$missing libmodbus5"
need node nodejs
need npm npm
ldconfig -p 2>/dev/null | grep -q 'libedit\.so\.2' || /sbin/ldconfig -p 2>/dev/null | grep -q 'libedit\.so\.2' || missing="$missing libedit2" # for chronyc, below
if [ "$(id -u)" = 0 ]; then need ip iproute2; fi # a cable can be pulled by root alone
need /usr/lib/postgresql/15/bin/postgres postgresql-15
need /usr/lib/softhsm/libsofthsm2.so softhsm2 # a hardware module made of software
need systemd-analyze systemd # reads the shipped units; nothing of it runs
need chromium chromium # looks at the pages
need chromedriver chromium-driver
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        echo "Installing Debian packages:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "The tests talk to real servers, and these Debian packages are missing. Please run:" >&2
        echo "    sudo apt-get install$missing" >&2
        exit 1
    fi
fi
# chrony is unpacked beside the tests and never installed: a package of it would take the place of whatever sets this machine's clock.
chrony=tests/peers/chrony
if [ ! -x "$chrony/unpacked/usr/sbin/chronyd" ]; then
    echo "Unpacking Debian's chrony into $chrony (it is not installed) ..."
    rm -rf "$chrony"
    mkdir -p "$chrony"
    download() { (cd "$chrony" && apt-get download -qq chrony); }
    download 2>/dev/null || { [ "$(id -u)" != 0 ] || apt-get update -qq; download; }
    dpkg -x "$chrony"/chrony_*.deb "$chrony/made"
    mv "$chrony/made" "$chrony/unpacked"
    rm "$chrony"/chrony_*.deb
fi
for peer in tests/peers/*/package.json; do
    [ -e "$peer" ] || continue
    directory=$(dirname "$peer")
    [ ! -L "$directory/node_modules" ] || continue # another checkout's: npm would empty it
    if [ ! -e "$directory/node_modules/.ready" ] || [ "$directory/package-lock.json" -nt "$directory/node_modules/.ready" ]; then
        echo "Installing the npm packages of $directory ..."
        # A registry may fail for a moment: once more, and then with npm's own words.
        npm ci --silent --no-audit --no-fund --prefix "$directory" || npm ci --loglevel=error --no-audit --no-fund --prefix "$directory"
        touch "$directory/node_modules/.ready"
    fi
done
