#!/bin/sh
# A Python environment with what a requirements file pins. Nothing is done where it is there already.
# usage: python-env.sh DIR REQUIREMENTS
set -eu

folder=${1:?usage: python-env.sh DIR REQUIREMENTS}
requirements=${2:?usage: python-env.sh DIR REQUIREMENTS}

# Copied last, so that an interrupted installation leaves nothing that looks finished.
if cmp -s "$requirements" "$folder/requirements.txt" && "$folder/bin/python" -c ''; then
    exit 0
fi
echo "installing $requirements into $folder"
python3 -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --requirement "$requirements"
cp "$requirements" "$folder/requirements.txt"
