#!/bin/sh
# The npm packages of package.json. Nothing is done where they are there already. The versions are exact and have no
# dependencies of their own, so there is no lock file.
# usage: install.sh DIR
set -eu

folder=${1:?usage: install.sh DIR}
package=$(dirname "$0")/package.json

if cmp -s "$package" "$folder/installed.json"; then
    exit 0
fi
echo "installing $package into $folder"
rm -rf "$folder"
mkdir -p "$folder"
cp "$package" "$folder/package.json"
npm install --prefix "$folder" --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
# Copied last, so that an interrupted installation leaves nothing that looks finished.
cp "$package" "$folder/installed.json"
