#!/bin/sh
# promtool and prometheus from Debian's package, without a service and without root. Nothing is done where both
# are there already, in DIR or in PATH.
# usage: install-prometheus.sh DIR
set -eu

folder=${1:?usage: install-prometheus.sh DIR}

works() { "$1/promtool" --version && "$1/prometheus" --version; } >/dev/null 2>&1

if works "$folder" || { command -v promtool && command -v prometheus; } >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo 'install promtool and prometheus (2.42 or newer): this is no Debian, so they cannot be fetched for you' >&2
    exit 1
fi
mkdir -p "$folder"
scratch=$(mktemp -d "$folder/prometheus.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

apt() { apt-get -o APT::Sandbox::User="$(id -un)" "$@"; }

cd "$scratch"
echo "fetching Debian's package prometheus into $folder"
if ! apt -qq download prometheus 2>/dev/null; then
    # A fresh machine has no package index. This one is private, so that neither root nor the system's is needed.
    mkdir -p state/lists/partial cache/archives/partial
    private="-o Dir::State=$scratch/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$scratch/cache"
    # shellcheck disable=SC2086 # these are several words
    apt -qq $private update && apt -qq $private download prometheus
fi
dpkg -x prometheus_*.deb package
# Moved last, so that an interrupted installation leaves nothing that looks finished.
mv package/usr/bin/promtool package/usr/bin/prometheus "$folder"
works "$folder"
