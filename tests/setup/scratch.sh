#!/bin/sh
# Run a command with its scratch files in memory where there is room for them: the tests sync hundreds of journals, and what that costs is not what they ask.
#
#     scratch.sh COMMAND…
#
# `SMP_BRIDGE_SCRATCH=disk` leaves them where the system puts them.
set -eu
memory=/dev/shm
least_kib=4000000
free_kib=$(df -Pk "$memory" 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ "${SMP_BRIDGE_SCRATCH:-}" = disk ] || [ -n "${TMPDIR:-}" ] || [ ! -w "$memory" ] || [ "${free_kib:-0}" -lt "$least_kib" ]; then
    exec "$@"
fi
export TMPDIR="$memory"
exec "$@"
