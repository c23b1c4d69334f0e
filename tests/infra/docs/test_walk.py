"""A newcomer's walk: every command of docs/install.md, in its order, in one shell."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from cloudformation.servers import client
from harness.loopback import free_port
from harness.waiting import until
from page import MARK, commands_of, split
from stage import CLUSTER, ROOT, STACK, Stage

PAGE = ROOT / "docs" / "install.md"
KUSTOMIZED = "kubectl apply -k ."
# Longer than the longest `--timeout` that a command waits for on the walk.
LONGEST = 300


class Shell:
    """bash as somebody has it who pastes commands into it."""

    def __init__(self, stage):
        self._folder = Path(tempfile.mkdtemp(prefix="shell-", dir=stage.folder))
        self._path, self._count = stage.folder / "bin-aws", 0
        said = self._folder / "said"
        # Two handles: one that is shared with the shell would move its place in the file, too.
        output = said.open("ab")
        self._said = said.open("rb")
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=stage.work,
            env=stage.environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        output.close()

    def run(self, text, apart=False):
        """The exit code, and what was said. `apart`: nothing of it reaches the commands after it."""
        self._count += 1
        file, done = self._folder / f"command-{self._count}", self._folder / f"done-{self._count}"
        file.write_text(text + "\n")
        typed = f". '{file}' </dev/null; echo $? >'{done}.new'; mv '{done}.new' '{done}'\n"
        if apart:
            typed = f"(PATH='{self._path}':$PATH; . '{file}' </dev/null); echo $? >'{done}.new'; mv '{done}.new' '{done}'\n"
        self._shell.stdin.write(typed.encode())
        self._shell.stdin.flush()
        until(text, lambda: done.exists() or self._shell.poll() is not None, limit=LONGEST, pause=0.02)
        said = self._said.read().decode()
        assert self._shell.poll() is None, f"the shell ended: {said}"
        return int(done.read_text()), said

    def close(self):
        self._shell.stdin.close()
        self._shell.wait(timeout=10)
        self._said.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("walk")) as stage:
        yield stage


def test_the_walk(stage):
    commands = commands_of(PAGE.read_text())
    assert len(commands) > 40, "the page has lost its commands"
    assert KUSTOMIZED in [command.text for command in commands]
    shell = Shell(stage)
    shell.run("set -o pipefail")
    rows, heading = [], None
    story = []
    try:
        for command in commands:
            if command.heading != heading:
                heading = command.heading
                print(f"\n  {heading}")
            text = command.text
            if "localhost:9090" in text and stage.admin():
                text = text.replace("localhost:9090", stage.admin())
            begun = time.monotonic()
            code, said = shell.run(text, apart=command.aws_only)
            took = time.monotonic() - begun
            how = "AWS only" if command.aws_only else "run"
            rows.append(how)
            print(f"    {how:8} {took:6.1f} s  {command}", flush=True)
            where = f"docs/install.md, line {command.line}: {command.text}"
            assert code == 0, f"{where}\nexit code {code}:\n{said}"
            story.append((command, said))
            if not command.aws_only:
                stage.after_a_command()
            if text == KUSTOMIZED:
                it_goes_without_helm(stage, shell)
            if heading == "9. Upgrade":
                # What a step before has asked for, a later one does not take back.
                assert (CLUSTER, "servicemonitor", STACK) in stage.objects, where
        shell.close()
    finally:
        (stage.folder / "story.txt").write_text("".join(f"$ {command.text}\n{said}\n" for command, said in story))
    print(f"\n  {rows.count('run')} commands run, {rows.count('AWS only')} are for AWS only")
    it_did_what_the_page_says(stage, story)


def it_goes_without_helm(stage, shell):
    """With IRSA, and away again: of that the page speaks in passing, since here it is helm that uninstalls."""
    outputs = stage.aws.stacks.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
    account = stage.objects[CLUSTER, "serviceaccount", STACK]["metadata"]
    assert account["annotations"]["eks.amazonaws.com/role-arn"] in [output["OutputValue"] for output in outputs], account
    assert "helm.sh/chart" not in account["labels"], account
    delete = "kubectl delete -k ."
    assert f"`{delete}`" in PAGE.read_text()
    for command, is_there in [(delete, False), (KUSTOMIZED, True)]:
        code, said = shell.run(command)
        assert code == 0, said
        assert ((CLUSTER, "deployment", STACK) in stage.objects) == (stage.worker is not None) == is_there


def it_did_what_the_page_says(stage, story):
    said = {}
    for command, words in story:
        said.setdefault(command.heading, []).append(words)
    ready = json.loads(last_json(said["Is it there"]))
    assert {part["name"] for part in ready} == {"queue", "cluster blue"} and all(part["ready"] for part in ready)
    ready = json.loads(last_json(said["8. More clusters"]))
    assert {part["name"] for part in ready} == {"queue", "cluster blue", "cluster green"}
    assert all(part["ready"] for part in ready), ready

    trial = "".join(said["A safe trial"])
    assert "Isolated" in trial, trial
    assert '"message":"left after' in trial, trial
    # No group has it attached: the page named it.
    assert "deregister blue-web:" in trial, trial
    assert 'offramp_jobs_finished_total{cluster="blue",outcome="left",trigger="hook"} 1' in trial, trial
    # Taken out in the right order, and by the worker.
    world = stage.here.look("story")
    assert [line for line in world if " is answered with CONTINUE" in line], world

    # What is uninstalled is gone.
    assert stage.worker is None
    assert stage.releases == {} and (CLUSTER, "deployment", STACK) not in stage.objects
    assert stage.stacks() & {STACK, "offramp-hooks-blue", "offramp-hooks-green"} == set()
    assert client("autoscaling", stage.here.aws).describe_lifecycle_hooks(AutoScalingGroupName="workers")["LifecycleHooks"] == []


def last_json(texts):
    return [line for text in texts for line in text.splitlines() if line.startswith("[{")][-1]


def test_commands_are_taken_apart_as_a_shell_reads_them():
    block = ["a=1", "", "cat <<END", "x", "END", "b \\", "    c", "for x in 1 2; do", "    echo", "done"]
    assert [text for _, text in split(block)] == ["a=1", "cat <<END\nx\nEND", "b \\\n    c", "for x in 1 2; do\n    echo\ndone"]
    page = f"# One\n```sh\na\n```\n{MARK}\n\n```sh\nb\n```\n## Two\n```sh\nc\n```\n"
    found = [(command.heading, command.text, command.aws_only) for command in commands_of(page)]
    assert found == [("One", "a", False), ("One", "b", True), ("Two", "c", False)]
    with pytest.raises(AssertionError, match="would wait for more"):
        commands_of("```sh\ncat <<END\n```\n")
    with pytest.raises(AssertionError, match="so all of them are `sh`"):
        commands_of("```console\n$ a\n```\n")


def test_what_only_aws_can_answer_is_still_spelled_right(stage):
    shell = Shell(stage)
    right, _ = shell.run("aws ecr delete-repository --repository-name offramp --force", apart=True)
    wrong, said = shell.run("aws ecr delete-repository --repository offramp --sorce", apart=True)
    shell.close()
    assert (right, wrong != 0) == (0, True), said


def test_pages_can_be_read_without_curl(stage):
    asked = {"program": "curl", "arguments": ["-s", "--retry", "5", f"{stage.here.aws}/_sandbox/state"], "input": ""}
    told = stage.answer(asked)
    assert told["code"] == 0 and "workers" in told["output"], told
    with pytest.raises(OSError):
        stage.answer(asked | {"arguments": [f"127.0.0.1:{free_port()}/live"]})
