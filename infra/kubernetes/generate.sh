#!/bin/sh
# Writes install.yaml and remote-cluster.yaml from the chart, for people without helm. Run it after a change of the
# chart; `make manifests` fails when the files are older than the chart. Needs helm.
# usage: infra/kubernetes/generate.sh [DIR]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here}

# usage: manifests HEADER ARGUMENT…, with values as input
manifests() {
    header=$1
    shift
    cat "$here/$header"
    cat "$here/namespace.yaml"
    # Whoever applies these files has no helm to look after them, so its labels would be untrue. The ConfigMap, and the
    # hash in its name, are left to kustomization.yaml.
    helm template offramp "$here/../helm/offramp" --namespace offramp --values - "$@" |
        sed -e '/^# Source: .*\/configmap\.yaml$/,/^---$/d' \
            -e '/^# Source: /d' -e '/ app.kubernetes.io\/managed-by: /d' -e '/ helm.sh\//d' \
            -e 's/ name: offramp-[0-9a-f]\{10\}$/ name: offramp/'
}

# The port of the configuration is also that of the container and of the Service. The account of the image is no other
# example's, so that `make walk` sees whether docs/install.md replaces it.
{ echo 'config:' && sed 's/^/  /' "$here/offramp.yaml"; } |
    manifests install.header --set image.repository=123456789012.dkr.ecr.eu-west-1.amazonaws.com/offramp \
        >"$folder/install.yaml"
echo 'mode: remote-cluster' | manifests remote-cluster.header >"$folder/remote-cluster.yaml"
