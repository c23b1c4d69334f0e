"""The Dockerfile, without a container engine: it is linted, and its steps are carried out one by one on this machine.

Three things differ from a build of the image. The development profile stands for the release profile, which takes ten
minutes. This machine's Rust and C library stand for those of the base image. And of the runtime stage, the program that
comes out is run as the image's user, and what it links to is compared with what the base has.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from processes import as_in_a_pod, open_folder, readable_binary
from rendering import CHART, LEAST, ROOT, container_of, pod_of, render

# Our own crates without optimisation: what they compile to is tested elsewhere, and this takes half of the time.
FASTER = "--config profile.dev.opt-level=0 --config profile.dev.debug=false"
# Always the same folder, so that cargo knows the packages in it again.
SCENE = ROOT / ".cache/image"
# The worlds are tests alone: no image needs them.
OUR_PACKAGES = sorted({path.parent.name for path in (ROOT / "crates").glob("*/Cargo.toml")} - {"worlds"})


@dataclass
class Step:
    word: str
    rest: str


@dataclass
class Stage:
    base: str
    name: str
    steps: list


def read_dockerfile():
    """Its stages. Enough of the syntax for what is in this one."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    stages = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name, []))
        else:
            stages[-1].steps.append(Step(word, rest.strip()))
    return stages


def pattern(text):
    """A pattern of .dockerignore, which matches a path and all below it."""
    parts = re.split(r"(\*\*/?|\*|\?)", text.strip("/"))
    meaning = {"**": ".*", "**/": "(.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts) + "(/.*)?")


def context():
    """The files that are sent to the builder, by the rules of .dockerignore: the last pattern that matches decides."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            rules.append((not line.startswith("!"), pattern(line.removeprefix("!"))))
    files = []
    for folder, below, names in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        if here == Path("."):
            # Large, and excluded by the first rule.
            below[:] = [name for name in below if name not in {".git", ".cache", "target"}]
        for name in names:
            path = str(here / name)
            ignored = [ignore for ignore, rule in rules if rule.fullmatch(path)]
            if not (ignored and ignored[-1]):
                files.append(path)
    return sorted(files)


STAGES = read_dockerfile()
SKELETON, BUILD, RUNTIME = STAGES


def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something():
    bad = "FROM debian\nRUN apt-get install curl\n"
    done = subprocess.run(["hadolint", "-"], input=bad, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "DL3006" in done.stdout


def test_the_context_is_what_the_build_reads():
    files = context()
    assert {"Cargo.toml", "Cargo.lock", "crates/offramp/src/main.rs", "tests/tidy.rs", "benches/storm.rs"} <= set(files)
    allowed = re.compile(r"Cargo\.(toml|lock)|crates/.+|tests/[^/]+\.rs|benches/[^/]+\.rs")
    assert [path for path in files if not allowed.fullmatch(path)] == []


@pytest.mark.parametrize("text, matches, misses", [
    ("*", ["a", "a/b"], []),
    ("crates", ["crates", "crates/a/b.rs"], ["crates2/a", "a/crates"]),
    ("tests/*.rs", ["tests/a.rs"], ["tests/a/b.rs", "a/tests/b.rs", "tests/a.rst"]),
    ("**/*.snap", ["a.snap", "a/b/c.snap"], ["a.snapped"]),
])
def test_dockerignore_is_read_as_docker_does(text, matches, misses):
    assert all(pattern(text).fullmatch(path) for path in matches)
    assert not any(pattern(text).fullmatch(path) for path in misses)


def test_the_bases_are_pinned_and_belong_together():
    assert SKELETON.base == BUILD.base
    assert re.fullmatch(r"rust:\d+\.\d+\.\d+-slim-trixie", BUILD.base)
    # Trixie is Debian 13: the C library that the program is linked to is the one that it finds.
    assert RUNTIME.base == "gcr.io/distroless/cc-debian13:nonroot"
    # Both architectures come from the same lines.
    text = (ROOT / "Dockerfile").read_text()
    assert "--platform=" not in text and "amd64 " not in text
    assert "--platform linux/amd64,linux/arm64" in text


def send_context(folder):
    """Copies the context, with the times of the checkout, as is done when it is sent to a builder."""
    for path in context():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    return folder


def copy_into(folder, step, outcomes, sent):
    """COPY: from the context, or from a stage that is done."""
    *options, source, target = step.rest.split()
    assert target == "."
    if options:
        (stage,) = [option.removeprefix("--from=") for option in options]
        origin = outcomes[stage] / source.lstrip("/")
    else:
        assert source == "."
        origin = sent
    shutil.copytree(origin, folder, dirs_exist_ok=True)


def cargo_without_release(folder):
    """A `cargo` that builds the development profile, and says on stdout what it has compiled."""
    folder.mkdir(parents=True)
    wanted = shlex.quote(shutil.which("cargo"))
    script = folder / "cargo"
    script.write_text(
        "#!/bin/sh\nset -eu\n"
        '[ "$1 $2" = "build --release" ] || { echo "not the command that is expected: $*" >&2; exit 1; }\n'
        "shift 2\n"
        f'exec {wanted} build --quiet --message-format=json "$@" {FASTER}\n'
    )
    script.chmod(0o755)
    return folder


def run_step(folder, command, path):
    """RUN; gives the packages that cargo compiled anew, and those that it had already."""
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    # What comes out lies in the stage's own target folder. What lies between is shared with the rest of this checkout,
    # so that the dependencies are compiled already.
    environment["CARGO_BUILD_BUILD_DIR"] = environment.pop("CARGO_TARGET_DIR", str(ROOT / "target"))
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}\n{done.stdout[-3000:]}"
    compiled, known = set(), set()
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact":
            (known if message["fresh"] else compiled).add(message["package_id"])
    return compiled, known


def own(packages):
    """Of package ids those of this workspace, by folder."""
    return sorted(match[1] for match in (re.search(r"/src/crates/([^/#]+)#", name) for name in packages) if match)


@pytest.fixture(scope="module")
def built():
    """The stages carried out: the context as it was sent, the folder of each stage, and what cargo did in each RUN."""
    shutil.rmtree(SCENE, ignore_errors=True)
    path = cargo_without_release(SCENE / "bin")
    sent = send_context(SCENE / "context")
    outcomes, runs = {}, []
    for stage in (SKELETON, BUILD):
        root = SCENE / stage.name
        folder = root
        for step in stage.steps:
            match step.word:
                case "WORKDIR":
                    folder = root / step.rest.lstrip("/")
                    folder.mkdir(parents=True)
                case "COPY":
                    copy_into(folder, step, outcomes, sent)
                case "RUN":
                    runs.append(run_step(folder, step.rest, path))
                case other:
                    raise AssertionError(f"{other}: teach the test what it does")
        outcomes[stage.name] = root
    return sent, outcomes, runs


def test_the_skeleton_holds_none_of_our_code(built):
    """Or each change of it would compile the dependencies again."""
    sent, outcomes, _ = built
    skeleton = outcomes[SKELETON.name] / "src"
    files = [file for file in skeleton.rglob("*") if file.is_file()]
    assert len(files) > len(OUR_PACKAGES)
    for file in files:
        if file.name in {"Cargo.toml", "Cargo.lock"}:
            assert file.read_bytes() == (sent / file.relative_to(skeleton)).read_bytes()
        else:
            assert file.suffix == ".rs" and file.read_text() == "fn main() {}\n", file


def test_the_first_build_is_the_dependencies_and_the_second_is_our_code(built):
    sent, outcomes, (nothing, dependencies, code) = built
    assert nothing == (set(), set())
    assert own(dependencies[0] | dependencies[1]) == OUR_PACKAGES, "every crate is reached, and so every dependency"
    compiled, known = code
    assert own(compiled) == OUR_PACKAGES, "our code is compiled, and not taken for the empty one"
    assert {name for name in compiled if "/src/crates/" not in name} == set(), "no dependency is compiled again"
    assert len(known) > 100
    for file in filter(Path.is_file, sent.rglob("*")):
        assert (outcomes[BUILD.name] / "src" / file.relative_to(sent)).read_bytes() == file.read_bytes(), file


def last(word):
    return [step.rest for step in RUNTIME.steps if step.word == word][-1]


@pytest.fixture(scope="module")
def program(built):
    """What COPY takes out of the build stage, but for the profile."""
    _, outcomes, _ = built
    *options, source, target = last("COPY").split()
    assert options == [f"--from={BUILD.name}"]
    assert json.loads(last("ENTRYPOINT")) == [target]
    assert "/release/" in source
    return outcomes[BUILD.name] / source.replace("/release/", "/debug/").lstrip("/")


def test_the_program_finds_its_libraries_in_the_image(program):
    done = subprocess.run(["readelf", "--dynamic", program], capture_output=True, text=True, check=True)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout))
    loader = {name for name in needed if name.startswith("ld-linux")}
    # What the cc image has of the C library and of gcc.
    assert needed - loader <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1"}
    assert needed


def start(program, *words):
    """The program with these words, as the image's user, who can write nothing."""
    with open_folder() as folder:
        return subprocess.run([readable_binary(folder, program), *words], env={"HOME": "/nonexistent"}, cwd="/",
                              capture_output=True, text=True, timeout=60, check=False, preexec_fn=as_in_a_pod())


def test_the_program_runs_as_the_image_s_user(program):
    user, group = last("USER").split(":")
    context_of_pod = pod_of(render(LEAST))["securityContext"]
    assert (int(user), int(group)) == (context_of_pod["runAsUser"], context_of_pod["runAsGroup"])
    done = start(program, "--help")
    assert done.returncode == 0 and "offramp run --config" in done.stdout


def test_the_image_s_command_says_what_it_needs(program):
    done = start(program, *json.loads(last("CMD")))
    assert done.returncode == 2
    assert "OFFRAMP_QUEUE_URL" in done.stderr and "OFFRAMP_CLUSTER_NAME" in done.stderr


def test_the_chart_gives_arguments_and_leaves_the_entrypoint():
    container = container_of(render(LEAST))
    assert "command" not in container
    assert container["args"][0] == json.loads(last("CMD"))[0] == "run"
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    assert container["args"][1:] == ["--config", mount["mountPath"] + "/offramp.yaml"]


def test_the_label_names_the_home_of_the_chart():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'org.opencontainers.image.source="{chart["home"]}"' in last("LABEL")
