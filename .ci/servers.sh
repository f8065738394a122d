#!/usr/bin/env bash
# The servers that the tests of registries start for themselves, privately: etcd, redis-server and dnsmasq.
# Says which are missing; as root on Debian, installs them without starting them as services of the system.
set -euo pipefail

declare -A packages=([etcd]=etcd-server [redis-server]=redis-server [dnsmasq]=dnsmasq-base)
PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests need servers that are not here. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "      installing ${missing[*]}, which tests start for themselves ..."
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
