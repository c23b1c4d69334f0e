#!/bin/sh
# Builds a real helm from its Go module into a folder, for the checks of the chart.
# Needs Go 1.26 and the Go module proxy. Cold it takes about a minute; nothing is done where it is there already.
# usage: build-helm.sh DIR
set -eu

version=v3.22.0
# The Kubernetes of its client libraries, which `helm template` takes for that of the cluster. Without these variables
# it would be 1.20, and helm would have no version.
minor=37
folder=${1:?usage: build-helm.sh DIR}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

if [ -x "$folder/helm" ] && "$folder/helm" version --short 2>/dev/null | grep -qx "$version"; then
    echo "helm $version is in $folder already"
    exit 0
fi

flags="-s -w -X helm.sh/helm/v3/internal/version.version=$version"
for package in pkg/chartutil pkg/lint/rules; do
    flags="$flags -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$minor"
done

echo "building helm $version into $folder (cold: about a minute)"
start=$(date +%s)
# Built beside its name and moved, so that an interrupted build leaves nothing that looks finished.
trap 'rm -rf "$folder/helm.new"' EXIT
CGO_ENABLED=0 GOBIN="$folder/helm.new" go install -trimpath -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$version"
mv "$folder/helm.new/helm" "$folder/helm"
echo "built in $(($(date +%s) - start)) s: $("$folder/helm" version --short)"
