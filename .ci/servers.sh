#!/usr/bin/env bash
# What tests and the benchmark start or compile for themselves, privately: `servers.sh` for the registries of the tests
# (etcd, redis-server, dnsmasq), `servers.sh benchmark` for the broker of nats-py and gcc, which the limit in C needs.
# Says what is missing; as root on Debian, installs it without starting it as a service of the system.
set -euo pipefail

who=${1:-tests}
case $who in
    tests) declare -A packages=([etcd]=etcd-server [redis-server]=redis-server [dnsmasq]=dnsmasq-base) ;;
    benchmark) declare -A packages=([nats-server]=nats-server [gcc]="gcc libc6-dev") ;;
    *) echo "servers.sh: '$who' is neither tests nor benchmark" >&2; exit 2 ;;
esac
PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in "${!packages[@]}"; do
    # shellcheck disable=SC2206  # one program may need several packages
    command -v "$program" >/dev/null || missing+=(${packages[$program]})
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The $who: programs are missing. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "      installing ${missing[*]}, which only the $who use ..."
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
