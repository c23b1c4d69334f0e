#!/bin/sh
# Writes install.yaml and remote-cluster.yaml from the chart, for people without helm. Run it after a change of the
# chart; `make manifests` fails when the files are older than the chart. Needs helm.
# usage: infra/kubernetes/generate.sh [DIR]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here}

# usage: manifests HEADER VALUES…
manifests() {
    header=$1
    shift
    cat "$here/$header"
    cat "$here/namespace.yaml"
    # Whoever applies these files has no helm to look after them, so its labels would be untrue. And they change the
    # ConfigMap by hand, so that a hash in its name would be untrue, too.
    helm template offramp "$here/../helm/offramp" --namespace offramp "$@" |
        sed -e '/^# Source: /d' -e '/ app.kubernetes.io\/managed-by: /d' -e '/ helm.sh\//d' \
            -e 's/ name: offramp-[0-9a-f]\{10\}$/ name: offramp/'
}

manifests install.header --values "$here/values.yaml" >"$folder/install.yaml"
manifests remote-cluster.header --set mode=remote-cluster >"$folder/remote-cluster.yaml"
