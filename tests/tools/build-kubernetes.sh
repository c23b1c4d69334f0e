#!/bin/sh
# Builds a real Kubernetes from Go modules into a folder: kubectl, and the servers of a control plane. What is there
# already is left as it is. Needs Go 1.26 and the Go module proxy. All of it takes six and a half minutes, cold and on
# two cores: the API server two and a half, kubectl one and a half, the others about one or less.
# usage: build-kubernetes.sh DIR PROGRAM…
#   PROGRAM: kubectl kube-apiserver kube-controller-manager kube-scheduler etcd kwok
set -eu

kubernetes=v1.36.3
etcd=v3.6.5
kwok=v0.8.0
usage='usage: build-kubernetes.sh DIR PROGRAM…'
folder=${1:?$usage}
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
tools=$(cd "$(dirname "$0")" && pwd)

# Without these variables a program calls itself v0.0.0, and clients and servers misjudge each other.
versions="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitTreeState=clean"
versions="$versions -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"

for program in "$@"; do
    asks=--version
    case $program in
    kubectl) version=$kubernetes module=kubernetes package=k8s.io/kubernetes/cmd/kubectl asks='version --client' ;;
    kube-*) version=$kubernetes module=kubernetes package=k8s.io/kubernetes/cmd/$program ;;
    etcd) version=$etcd module=etcd package=go.etcd.io/etcd/server/v3 ;;
    kwok) version=$kwok module=kwok package=sigs.k8s.io/kwok/cmd/kwok ;;
    *) echo "$usage" >&2 && exit 2 ;;
    esac
    # etcd says its version without the v.
    if [ -x "$folder/$program" ] && "$folder/$program" $asks 2>/dev/null | grep -qw "${version#v}\|$version"; then
        echo "$program $version is in $folder already"
        continue
    fi
    echo "building $program $version into $folder"
    start=$(date +%s)
    # Built beside its name and moved, so that an interrupted build leaves nothing that looks finished.
    (cd "$tools/$module" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w $versions" \
        -o "$folder/$program.new" "$package")
    mv "$folder/$program.new" "$folder/$program"
    echo "built in $(($(date +%s) - start)) s"
done
