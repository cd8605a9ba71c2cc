#!/bin/sh
# Installs the bridge as a service on a Debian host. Running it again upgrades; configuration, keys and journals are never touched.
set -eu
umask 022 # the service reads what root installs
usage() {
    cat <<'USAGE'
Usage: install.sh [--extras LIST] [--files-only] [--root DIR]
  --files-only   units, users and directories only; leave /opt/smp-bridge/venv as it is
  --root DIR     the files only, below DIR; a virtual environment works only where it was made, so run install.sh there
  --extras LIST  of serial,postgres,tracing,hsm (default: none)
USAGE
}
root='' files_only='' extras=''
while [ $# -gt 0 ]; do
    case "$1" in
        --root) root=${2:?--root needs a directory}; files_only=yes; shift 2 ;;
        --extras) extras=${2:?--extras needs a list}; shift 2 ;;
        --files-only) files_only=yes; shift ;;
        --help | -h) usage; exit 0 ;;
        *) echo "install.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
done
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "install.sh: must be run as root; or give --root DIR" >&2
    exit 1
fi
here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
units="$root/etc/systemd/system"

if [ -z "$files_only" ]; then
    venv=/opt/smp-bridge/venv
    locks=
    for set in runtime $(echo "$extras" | tr ',' ' '); do
        case "$set" in
            runtime | serial | postgres | tracing | hsm) ;;
            *) echo "install.sh: unknown extra $set" >&2; usage >&2; exit 2 ;;
        esac
        locks="$locks --requirement $source/locks/$set.txt"
    done
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    # Only what is locked, each file by its hash. What builds the wheel is locked too, and stays out of the service's own environment.
    building=$(mktemp -d)
    trap 'rm -rf "$building"' EXIT
    python3 -m venv "$building/venv"
    "$building/venv/bin/pip" install --quiet --require-hashes --requirement "$source/locks/build.txt"
    "$building/venv/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$building" "$source"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --require-hashes $locks
    "$venv/bin/pip" install --quiet --no-deps --no-index --force-reinstall "$building"/*.whl
fi
install -d "$units" "$root/etc/sysusers.d" "$root/etc/tmpfiles.d" "$root/opt/smp-bridge"
for unit in smp-bridge.service smp-bridge@.service smp-bridge.socket smp-bridge@.socket; do
    install -m 0644 "$here/$unit" "$units/$unit"
done
install -m 0644 "$here/sysusers.conf" "$root/etc/sysusers.d/smp-bridge.conf"
install -m 0644 "$here/tmpfiles.conf" "$root/etc/tmpfiles.d/smp-bridge.conf"
for dropin in serial.conf credentials.conf; do
    install -m 0644 "$here/$dropin" "$root/opt/smp-bridge/$dropin"
done
install -m 0644 "$source/README.md" "$root/opt/smp-bridge/README.md"
if [ -n "$root" ]; then
    exit 0
fi
systemd-sysusers /etc/sysusers.d/smp-bridge.conf
systemd-tmpfiles --create /etc/tmpfiles.d/smp-bridge.conf
systemctl daemon-reload
echo "Installed. Write /etc/smp-bridge/bridge.yaml and sites/, then: systemctl enable --now smp-bridge"
echo "A service that runs already goes on with the former version until: systemctl restart smp-bridge"
