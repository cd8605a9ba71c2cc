#!/bin/sh
# Stops and removes the service. Configuration, keys and journals stay: they are evidence, and yours to delete.
set -eu
root=''
while [ $# -gt 0 ]; do
    case "$1" in
        --root) root=${2:?--root needs a directory}; shift 2 ;;
        --help | -h) echo "Usage: uninstall.sh [--root DIR]"; exit 0 ;;
        *) echo "uninstall.sh: unknown argument $1" >&2; exit 2 ;;
    esac
done
if [ -z "$root" ]; then
    [ "$(id -u)" = 0 ] || { echo "uninstall.sh: must be run as root; or give --root DIR" >&2; exit 1; }
    # Sockets first, so that none starts its service again.
    for kind in socket service; do
        for unit in $(systemctl list-units --all --plain --no-legend "smp-bridge.$kind" "smp-bridge@*.$kind" | cut -d ' ' -f 1); do
            systemctl disable --now "$unit"
        done
        for link in /etc/systemd/system/*.wants/smp-bridge*."$kind"; do
            if [ -L "$link" ]; then rm "$link"; fi
        done
    done
fi
for unit in smp-bridge.service smp-bridge@.service smp-bridge.socket smp-bridge@.socket; do
    rm -f "$root/etc/systemd/system/$unit"
done
rm -f "$root/etc/sysusers.d/smp-bridge.conf" "$root/etc/tmpfiles.d/smp-bridge.conf"
rm -f "$root/opt/smp-bridge/serial.conf" "$root/opt/smp-bridge/credentials.conf" "$root/opt/smp-bridge/README.md"
rm -rf "$root/opt/smp-bridge/venv"
if [ -z "$root" ]; then systemctl daemon-reload; fi
echo "Removed. These stay: $root/etc/smp-bridge, $root/var/lib/smp-bridge, $root/var/lib/smp-bridge.anchor, drop-ins and the user smp-bridge."
