#!/bin/sh
# promtool and prometheus from Debian's package, without a service and without root. Nothing is done where both
# are there already, in DIR or in PATH, and not too old.
# usage: install-prometheus.sh DIR
set -eu

folder=${1:?usage: install-prometheus.sh DIR}

# What Debian 12 has. The rules use nothing newer.
oldest=2.42

# "promtool, version 2.42.0+ds (branch: …": old ones say it on stderr.
new_enough() {
    version=$("$1" --version 2>&1 | sed -n '1s/.*, version \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ]
}

if new_enough "$folder/promtool" && new_enough "$folder/prometheus"; then
    exit 0
fi
if [ ! -e "$folder/promtool" ] && new_enough promtool && new_enough prometheus; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install promtool and prometheus ($oldest or newer): this is no Debian, so they cannot be fetched for you" >&2
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
new_enough "$folder/promtool" && new_enough "$folder/prometheus"
