"""What was seen of each version, side by side."""

from itertools import zip_longest
from textwrap import wrap

# Characters: so that a row fits into 120.
WHAT, SEEN = 50, 32


def table(seen):
    """`seen` has for each case the findings by the names of the versions, the same versions and findings in each."""
    versions = list(next(iter(seen.values())))
    lines = [
        "`!` marks what is not as it should be.",
        "",
        row("", versions),
        row("-" * WHAT, ["-" * SEEN] * len(versions)),
    ]
    for case, by_version in seen.items():
        lines.append(case)
        for findings in zip(*by_version.values(), strict=True):
            cells = [("  " if finding.right else "! ") + finding.seen for finding in findings]
            lines += rows("  " + findings[0].what, cells)
    return "\n".join(line.rstrip() for line in lines)


def rows(what, cells):
    """One row of as many lines as its longest cell takes."""
    columns = [
        wrap(what, WHAT, subsequent_indent="    "),
        *(wrap(cell, SEEN, subsequent_indent="  ") for cell in cells),
    ]
    return [row(first, rest) for first, *rest in zip_longest(*columns, fillvalue="")]


def row(first, rest):
    return " | ".join([first.ljust(WHAT), *(cell.ljust(SEEN) for cell in rest)])
