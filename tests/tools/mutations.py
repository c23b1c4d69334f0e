#!/usr/bin/env python3
"""Takes one brake or witness away at a time, and looks for who notices: a test, a scenario, a random world.

Works on a copy of HEAD. Exit code 0: each mutation is found. 1: one is not. 2: the table does not fit the code, or the
code fails unchanged.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A run leaves nothing beside the table.
sys.dont_write_bytecode = True
from mutation_table import TABLE, Mutation

ROOT = Path(__file__).resolve().parents[2]
# The crates whose tests have to notice. Of another crate that a mutation changes, its own tests are asked, too.
ASKED = {"core", "engine"}
# It takes longer than all others together: it is asked when they have found nothing.
SLOW = "enumeration"
# The others are faster to build than to run.
UNOPTIMISED = {"CARGO_PROFILE_DEV_OPT_LEVEL": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
# A mutation may make a test or a world that never ends: seconds.
TESTS_TAKE = 1800
WORLDS_TAKE = 1200

# Who found it: tests, scenarios, worlds, each with what it was.
Row = tuple[tuple[bool, str], tuple[bool, str], tuple[bool, str]]
NOT_ASKED = (False, "not asked")


class Copy:
    """A copy of HEAD, and a target folder that stays from one mutation to the next."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.target = folder / "target"
        quiet = {"INSTA_UPDATE": "no", "CARGO_TERM_COLOR": "never"}
        self.env = os.environ | quiet | {"CARGO_TARGET_DIR": str(self.target)}
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True).stdout
        # Everything counts as changed: the last run may have been stopped with a mutation built.
        subprocess.run(["tar", "-x", "-m", "-C", self.tree], input=archive, check=True)

    def misfits(self, mutation: Mutation) -> list[str]:
        found = []
        for file, old, _ in mutation.edits:
            path = self.tree / file
            count = path.read_text().count(old) if path.exists() else 0
            if count != 1:
                found.append(f"{mutation.name}: {count} times in {file}, and not once: {old}")
        return found

    def apply(self, mutation: Mutation) -> dict[Path, str]:
        """Gives what has to be written back."""
        before: dict[Path, str] = {}
        for file, old, new in mutation.edits:
            path = self.tree / file
            text = path.read_text()
            before.setdefault(path, text)
            path.write_text(text.replace(old, new))
        return before

    def run(self, command: list[str], seconds: int, **env: str) -> tuple[int, str]:
        """The exit code, and all that was printed. 124: it did not end."""
        try:
            done = subprocess.run(
                command,
                cwd=self.tree,
                env=self.env | env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as late:
            return 124, late.output.decode(errors="replace") if isinstance(late.output, bytes) else late.output or ""
        return done.returncode, done.stdout

    def cargo(self, arguments: list[str], **env: str) -> tuple[int, str]:
        return self.run(["cargo", *arguments], TESTS_TAKE, **env)


def find_by_tests(copy: Copy, crates: set[str]) -> tuple[bool, str]:
    """Whether a test of these crates fails, and which."""
    tests = ["test", *(f"--package=offramp-{crate}" for crate in sorted(crates)), "--lib", "--no-fail-fast", "--"]
    fast = str(copy.target / "fast")
    code, output = copy.cargo([*tests, "--skip", SLOW], CARGO_TARGET_DIR=fast, **UNOPTIMISED)
    if code == 0:
        code, output = copy.cargo([*tests, SLOW])
    return judge(code, output)


def find_by_scenarios(copy: Copy) -> tuple[bool, str]:
    """Whether a scripted world goes wrong, and which."""
    return judge(*copy.cargo(["test", "--profile=worlds", "--package=offramp-worlds", "--test=scenarios"]))


def judge(code: int, output: str) -> tuple[bool, str]:
    """Whether a test failed, and the first one in alphabetical order."""
    if code == 0:
        return False, "NOT FOUND"
    failed = sorted(set(re.findall(r"^test (\S+) \.\.\. FAILED", output, re.MULTILINE)))
    if failed:
        return True, failed[0] + (f" (+{len(failed) - 1})" if failed[1:] else "")
    if code == 124:
        return True, "the tests do not end"
    sys.exit(f"{output}\nno test has failed, and yet the tests do not pass: does the mutation compile?")


def simulation_of(copy: Copy) -> str:
    """The program with the simulation, built."""
    code, output = copy.cargo(["test", "--profile=worlds", "--package=offramp-worlds", "--test=simulation", "--no-run"])
    program = re.search(r"Executable .*simulation\.rs \((.*)\)", output)
    if code != 0 or program is None:
        sys.exit(f"{output}\nthe simulation cannot be built")
    return program[1]


def find_by_worlds(copy: Copy, limit: int, block: int, jobs: int) -> tuple[bool, str]:
    """Whether one of the first worlds breaks an invariant, and the number of the first one that does."""
    program = simulation_of(copy)

    def play(begin: int) -> str | None:
        end = min(begin + block, limit)
        code, output = copy.run([program, "invariants"], WORLDS_TAKE, OFFRAMP_SEEDS=f"{begin}..{end}")
        if code == 0:
            return None
        first = re.search(r"OFFRAMP_SEEDS=(\d+) cargo test", output)
        if first:
            return f"seed {first[1]}"
        return f"seeds {begin} to {end - 1}: " + ("no end" if code == 124 else "a panic")

    begins = range(0, limit, block)
    # A few blocks at a time, so that nothing is played after the first one that fails.
    with ThreadPoolExecutor(jobs) as pool:
        for at in range(0, len(begins), jobs):
            for found in pool.map(play, begins[at : at + jobs]):
                if found:
                    return True, found
    return False, f"NOT FOUND in {limit}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="for the copy and its target folder; may be kept for the next run")
    parser.add_argument("--seeds", type=int, default=3000, help="so many worlds at most; 0: none")
    parser.add_argument("--block", type=int, default=250, help="so many at a time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="so many blocks at once")
    parser.add_argument("--no-tests", dest="tests", action="store_false", help="ask no tests")
    parser.add_argument("--no-scenarios", dest="scenarios", action="store_false", help="ask no scenarios")
    parser.add_argument("--first", action="store_true", help="once a test or a scenario notices, ask nobody else")
    parser.add_argument("--only", action="append", help="those mutations whose name contains this; may be repeated")
    parser.add_argument("--check", action="store_true", help="only whether the table fits the code")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    copy = Copy(options.folder.resolve())
    misfits = [misfit for mutation in TABLE for misfit in copy.misfits(mutation)]
    if misfits:
        print("The table does not fit the code any more:", *misfits, sep="\n  ")
        return 2
    if options.check:
        print(f"all {len(TABLE)} mutations fit")
        return 0

    def look(crates: set[str]) -> Row:
        tests = scenarios = worlds = NOT_ASKED
        if options.tests:
            tests = find_by_tests(copy, crates)
        if options.scenarios and not (options.first and tests[0]):
            scenarios = find_by_scenarios(copy)
        if options.seeds and not (options.first and (tests[0] or scenarios[0])):
            worlds = find_by_worlds(copy, options.seeds, options.block, options.jobs)
        return tests, scenarios, worlds

    mutations = [
        mutation for mutation in TABLE if any(part in mutation.name for part in options.only or [""])
    ]
    crates_of = {mutation: ASKED | {edit.file.split("/")[1] for edit in mutation.edits} for mutation in mutations}
    row = look(ASKED.union(*crates_of.values()))
    if any(found for found, _ in row):
        print("The code fails unchanged:", *(what for _, what in row), sep="\n  ")
        return 2
    rows = {}
    for mutation in mutations:
        began, before = time.monotonic(), copy.apply(mutation)
        try:
            rows[mutation.name] = look(crates_of[mutation])
        finally:
            for path, text in before.items():
                path.write_text(text)
        found = " | ".join(what for _, what in rows[mutation.name])
        print(f"{mutation.name} | {found} | {time.monotonic() - began:.0f} s", flush=True)
    return report(rows)


def report(rows: dict[str, Row]) -> int:
    print("\n| mutation | test of its crate | scenario | world |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} |", " | ".join(what for _, what in row), "|")
    nobody = [name for name, row in rows.items() if not any(found for found, _ in row)]
    found = [sum(row[at][0] for row in rows.values()) for at in range(3)]
    print("\n{} mutations: {} found by tests, {} by scenarios, {} by worlds".format(len(rows), *found))
    print("found by nobody:", ", ".join(nobody) or "none")
    return 1 if nobody else 0


if __name__ == "__main__":
    sys.exit(main())
