#!/usr/bin/env bash
# What the benchmark starts or compiles for itself, privately: nats-server, the broker of nats-py, and gcc, for the
# limit in C. Says which are missing; as root on Debian, installs them without starting them as services of the system.
set -euo pipefail

declare -A packages=([nats-server]=nats-server [gcc]="gcc libc6-dev")
PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in "${!packages[@]}"; do
    # shellcheck disable=SC2206  # one program may need several packages
    command -v "$program" >/dev/null || missing+=(${packages[$program]})
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The benchmark needs programs that are not here. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "      installing ${missing[*]}, for the benchmark alone ..."
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
