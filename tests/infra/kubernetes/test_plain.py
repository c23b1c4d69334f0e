"""The manifests for people without helm."""

import os
import subprocess

import kubernetes_validate
import pytest
import yaml

from processes import Sandbox, Worker, open_folder
from rendering import CHART, LEAST, PLAIN, ROOT, configuration, container_of, kinds, laid_over, objects, render, the
from test_objects import VERSIONS

FILES = ["install.yaml", "remote-cluster.yaml"]


def kustomize(folder):
    """`kubectl kustomize`, which is what `kubectl apply -k` applies."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


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


def test_they_are_what_the_chart_gives(tmp_path):
    subprocess.run([PLAIN / "generate.sh", tmp_path], check=True, timeout=60,
                   env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"})
    for name in FILES:
        written, fresh = (PLAIN / name).read_text(), (tmp_path / name).read_text()
        assert written == fresh, "the chart has changed: run infra/kubernetes/generate.sh"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_the_schemas_of_kubernetes_take_them(name, version):
    documents = objects((PLAIN / name).read_text())
    assert documents[0]["kind"] == "Namespace"
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version
        metadata = document["metadata"]
        words = metadata.get("labels", {}).keys() | (metadata.get("annotations") or {}).keys()
        assert not [word for word in words if word.startswith("helm.sh/") or word.endswith("/managed-by")]
        assert metadata["name"] in {"offramp", "offramp-token", "offramp-offramp"}
        assert metadata.get("namespace", "offramp") == "offramp"


def test_both_give_the_same_rights():
    local, remote = (the("ClusterRole", objects((PLAIN / name).read_text()))["rules"] for name in FILES)
    assert local == remote


def test_kustomize_takes_the_folder():
    install = objects((PLAIN / "install.yaml").read_text())
    assert kinds(kustomize(PLAIN)) == kinds(install)


def test_the_kustomization_that_the_file_shows_works(tmp_path):
    shown = block(header("install"), "resources: [")
    (base,) = shown["resources"]
    assert base.endswith("infra/kubernetes")
    (tmp_path / "infra").mkdir()
    for name in ["kustomization.yaml", "install.yaml"]:
        (tmp_path / "infra" / name).write_text((PLAIN / name).read_text())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(yaml.safe_dump(shown | {"resources": ["../infra"]}))
    documents = kustomize(tmp_path / "mine")
    (image,) = shown["images"]
    assert container_of(documents)["image"] == f"{image['newName']}:{image['newTag']}"
    text = configuration(documents)
    assert yaml.safe_load(text)["clusters"] == [{"name": "shop"}]
    with open_folder() as folder, Worker(folder, text) as worker:
        code, said = worker.ended()
    assert code == 2 and said.count("offramp.yaml") == 1 and "no way in: this is no pod" in said


def test_the_kubeconfig_that_the_file_shows_works():
    """As a Secret with a token beside it, mounted as the chart mounts it. The certificate is left out, since the
    sandbox speaks plain HTTP."""
    text = header("remote-cluster")
    kubeconfig, values = block(text, "apiVersion: v1"), block(text, "kubeconfigSecrets:")
    assert kubeconfig["clusters"][0]["cluster"].pop("certificate-authority") == "ca.crt"
    assert kubeconfig["users"][0]["user"] == {"tokenFile": "token"}
    with open_folder() as folder, Sandbox(folder) as sandbox:
        server = yaml.safe_load(sandbox.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        kubeconfig["clusters"][0]["cluster"]["server"] = server
        documents = render(laid_over(LEAST, values | {"config": values["config"] | {
            "queue": {"url": sandbox.queue}, "aws": {"region": "eu-west-1", "endpoint_url": sandbox.aws}}}))
        (mount,) = [m for m in container_of(documents)["volumeMounts"] if m["name"] == "kubeconfig-green"]
        (folder / "green").mkdir()
        (folder / "green/kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        (folder / "green/token").write_text("a-token")
        mounted = configuration(documents).replace(mount["mountPath"], str(folder / "green"))
        assert str(folder) in mounted
        with Worker(folder, mounted) as worker:
            worker.is_ready()


def test_the_commands_name_what_there_is():
    text = header("remote-cluster")
    remote = objects((PLAIN / "remote-cluster.yaml").read_text())
    assert f"-n offramp get secret {the('Secret', remote)['metadata']['name']} " in text
    (secret,) = block(text, "kubeconfigSecrets:")["kubeconfigSecrets"].values()
    assert f"create secret generic {secret} " in text
    for path in ["infra/kubernetes/remote-cluster.yaml", "infra/helm/offramp", "infra/kubernetes/generate.sh"]:
        assert path in text and (ROOT / path).exists()
    assert CHART.is_dir()
