"""A page as a list of commands, each with the heading it stands under."""

import re
import subprocess
from dataclasses import dataclass

MARK = "**[AWS only]**"


@dataclass(frozen=True)
class Command:
    heading: str
    line: int
    text: str
    # Only a real account can answer it.
    aws_only: bool

    def __str__(self):
        first, *rest = self.text.splitlines()
        return first + (" …" if rest else "")


def commands_of(text):
    """The commands of every block that is marked as `sh`, in their order."""
    commands, block, heading, last = [], None, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if block is not None:
            if line == "```":
                commands += [Command(heading, start + at, words, marked) for at, words in split(block)]
                block = None
            else:
                block.append(line)
        elif line.startswith("```"):
            assert line == "```sh", f"line {number}: {line!r}: a reader pastes blocks, so all of them are `sh`"
            block, start, marked, last = [], number + 1, last == MARK, ""
        else:
            if found := re.match(r"#+ (.*)", line):
                heading = found[1]
            assert last != MARK or not line, f"line {number}: the mark stands over its block and nothing else"
            last = line or last
    assert block is None, "a block has no end"
    return commands


def split(lines):
    """The lines of a block as whole commands: a line ends one where the shell would not ask for more."""
    commands, pending, start = [], [], 0
    for at, line in enumerate(lines):
        if not pending:
            start = at
        pending.append(line)
        if line.strip() and is_whole("\n".join(pending)):
            commands.append((start, "\n".join(pending)))
            pending = []
        elif not line.strip() and len(pending) == 1:
            pending = []
    assert not pending, f"the shell would wait for more after: {pending}"
    return commands


def is_whole(text):
    if text.endswith("\\"):
        return False
    # bash only warns of a here-document without its end.
    checked = subprocess.run(["bash", "-n"], input=text + "\n", capture_output=True, text=True)
    return checked.returncode == 0 and not checked.stderr
