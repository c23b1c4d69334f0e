"""The comments at the top of the plain manifests, which say how to use them."""

from pathlib import Path

import yaml

PLAIN = Path(__file__).resolve().parents[3] / "infra/kubernetes"


def header(name):
    """The comment at the top of a file, as text."""
    lines = (PLAIN / f"{name}.header").read_text().splitlines()
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


def block(text, first):
    """The indented lines of a comment from the one that begins with `first` on, as YAML."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.strip().startswith(first))
    indent = len(lines[start]) - len(lines[start].lstrip())
    taken = []
    for line in lines[start:]:
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            break
        taken.append(line)
    return yaml.safe_load("\n".join(taken))
