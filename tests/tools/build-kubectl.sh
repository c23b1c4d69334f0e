#!/bin/sh
# Builds a real kubectl from Go modules into a folder, for the checks of the sandbox's Kubernetes door.
# Needs Go 1.26 and the Go module proxy. Cold it takes about two minutes; nothing is done where it is there already.
# usage: build-kubectl.sh DIR
set -eu

version=v1.36.3
folder=${1:?usage: build-kubectl.sh DIR}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
source=$(cd "$(dirname "$0")/kubectl" && pwd)

if [ -x "$folder/kubectl" ] && "$folder/kubectl" version --client 2>/dev/null | grep -q "$version"; then
    echo "kubectl $version is in $folder already"
    exit 0
fi

# Without these variables the client calls itself v0.0.0 and warns about every server.
flags="-s -w"
for pair in "gitVersion=$version" gitMajor=1 gitMinor=36 gitTreeState=clean; do
    flags="$flags -X k8s.io/component-base/version.$pair"
done

echo "building kubectl $version into $folder (cold: about two minutes)"
start=$(date +%s)
cd "$source"
# Built beside its name and moved, so that an interrupted build leaves nothing that looks finished.
CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "$flags" -o "$folder/kubectl.new" .
mv "$folder/kubectl.new" "$folder/kubectl"
echo "built in $(($(date +%s) - start)) s: $("$folder/kubectl" version --client | head -n 1)"
