#!/bin/sh
# Builds the binary of an earlier commit, to compare with: DIR/COMMIT/offramp. Nothing is done where it is there already.
# Built as the parts of the Makefile build theirs, in a target folder of its own, which is removed once the binary is
# taken out of it: it takes gigabytes. Cold it takes about five minutes on two cores.
# usage: build-version.sh COMMIT DIR
#   COMMIT: by its hash, because a name moves on, and what is there already would not be what it names
# Exit code 3: the commit is not in this clone.
set -eu

usage='usage: build-version.sh COMMIT DIR'
commit=${1:?$usage}
folder=${2:?$usage}
case $commit in
*[!0-9a-f]*) echo "$usage (the hash of a commit)" >&2 && exit 2 ;;
esac
root=$(cd "$(dirname "$0")/../../.." && pwd)

if [ -x "$folder/$commit/offramp" ]; then
    echo "offramp of $commit is in $folder already"
    exit 0
fi
if ! git -C "$root" rev-parse --quiet --verify "$commit^{commit}" >/dev/null 2>&1; then
    echo "NOT BUILT: commit $commit is not in this clone (a shallow one gets it by: git fetch --unshallow)" >&2
    exit 3
fi
mkdir -p "$folder/$commit"
folder=$(cd "$folder/$commit" && pwd)
tree=$folder/tree

# Also what an interrupted build has left.
remove_tree() {
    rm -rf "$tree"
    git -C "$root" worktree prune
}
remove_tree
trap remove_tree EXIT

echo "building offramp of $commit into $folder (cold: about five minutes)"
start=$(date +%s)
git -C "$root" worktree add --quiet --detach "$tree" "$commit"
# In its own folder, where the toolchain of that commit is named.
(cd "$tree" && cargo build --locked -p offramp --target-dir "$folder/target")
# Moved, so that an interrupted build leaves nothing that looks finished.
mv "$folder/target/debug/offramp" "$folder/offramp"
rm -rf "$folder/target"
echo "built in $(($(date +%s) - start)) s: $("$folder/offramp" --version)"
