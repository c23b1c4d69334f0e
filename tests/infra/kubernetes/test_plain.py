"""The manifests for people without helm."""

import os
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from headers import PLAIN, block, header
from processes import ReadableSandbox, RestrictedWorker, open_folder
from rendering import CHART, LEAST, ROOT, configuration, container_of, laid_over, objects, pod_of, render, the
from test_objects import VERSIONS

FILES = ["install.yaml", "remote-cluster.yaml"]


def kubectl(*words, given=None):
    """Only for what kubectl does without a cluster."""
    done = subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, timeout=60, check=False,
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": os.devnull})
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomize(folder=PLAIN):
    """What `kubectl apply -k` applies."""
    return objects(kubectl("kustomize", folder))


def remote_cluster():
    """What `kubectl apply -f` applies to a cluster that is served from elsewhere."""
    return objects((PLAIN / "remote-cluster.yaml").read_text())


def config_map(documents):
    """The name of the only ConfigMap, which the only volume is."""
    (volume,) = pod_of(documents)["volumes"]
    name = the("ConfigMap", documents)["metadata"]["name"]
    assert volume == {"name": "config", "configMap": {"name": name}}
    return name


def without_what_is_helms(documents):
    """For comparison, by kind: no labels and annotations for helm, no hash, and the configuration as what it says."""
    found = {}
    for document in documents:
        text = yaml.safe_dump(document)
        text = re.sub(r".*(helm\.sh/|/managed-by:).*\n", "", text)
        text = text.replace(config_map(documents), "offramp-HASH")
        document = yaml.safe_load(text)
        if not document["metadata"].get("annotations", True):
            del document["metadata"]["annotations"]
        if document["kind"] == "ConfigMap":
            document["data"]["offramp.yaml"] = yaml.safe_load(document["data"]["offramp.yaml"])
        assert document["kind"] not in found
        found[document["kind"]] = document
    return found


def test_they_are_what_the_chart_gives(tmp_path):
    subprocess.run([PLAIN / "generate.sh", tmp_path], check=True, timeout=60,
                   env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"})
    for name in FILES:
        written, fresh = (PLAIN / name).read_text(), (tmp_path / name).read_text()
        assert written == fresh, "the chart has changed: run infra/kubernetes/generate.sh"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("given", [kustomize, remote_cluster])
def test_the_schemas_of_kubernetes_take_them(given, version):
    documents = given()
    # Everything else is in it, or is read by what comes after.
    assert documents[0]["kind"] == "Namespace"
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version
        metadata = document["metadata"]
        words = metadata.get("labels", {}).keys() | (metadata.get("annotations") or {}).keys()
        assert not [word for word in words if word.startswith("helm.sh/") or word.endswith("/managed-by")]
        if document["kind"] == "ConfigMap":
            assert re.fullmatch("offramp-[a-z0-9]{10}", metadata["name"])
        else:
            assert metadata["name"] in {"offramp", "offramp-token", "offramp-offramp"}
        assert metadata.get("namespace", "offramp") == "offramp"


def test_both_give_the_same_rights():
    local, remote = (the("ClusterRole", documents)["rules"] for documents in (kustomize(), remote_cluster()))
    assert local == remote


def test_they_are_the_objects_of_the_chart():
    """The ConfigMap, too, which kustomize makes: its namespace, its labels, and how the Deployment names it."""
    plain = kustomize()
    image = container_of(plain)["image"].rsplit(":", 1)[0]
    values = {"image": {"repository": image}, "config": yaml.safe_load((PLAIN / "offramp.yaml").read_text())}
    plain, chart = without_what_is_helms(plain), without_what_is_helms(render(values))
    namespace = plain.pop("Namespace")
    assert plain == chart
    assert plain["Deployment"]["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_each_configuration_is_a_configmap_of_its_own(tmp_path):
    """A change rolls the pods, and those of before find the file of before."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(PLAIN, folder)
    before = config_map(kustomize(folder))
    assert before == config_map(kustomize())
    # Another image alone is no other configuration.
    for name, words, others in [("install.yaml", ":0.2.0", ":0.2.1"), ("offramp.yaml", "name: blue", "name: green")]:
        text = (folder / name).read_text()
        assert words in text
        (folder / name).write_text(text.replace(words, others))
        after = config_map(kustomize(folder))
        assert (after != before) == (name == "offramp.yaml")


def test_the_kustomization_that_the_page_shows_works(tmp_path):
    """In a checkout, with IRSA."""
    page = (ROOT / "docs/install.md").read_text()
    shown = "\n".join(re.findall(r"^cat >>?kustomization.yaml <<END\n(.*?)^END$", page, re.M | re.S)[:2])
    examples = {"$IMAGE": "registry.example.com/offramp", "$ROLE_ARN": "arn:aws:iam::111122223333:role/offramp"}
    for name, example in examples.items():
        assert shown.count(name) == 1
        shown = shown.replace(name, example)
    mine = tmp_path / "mine"
    shutil.copytree(PLAIN, mine / "infra/kubernetes")
    (mine / "kustomization.yaml").write_text(shown)
    (mine / "offramp.yaml").write_text((PLAIN / "offramp.yaml").read_text().replace("name: blue", "name: shop"))
    plain, documents = kustomize(), kustomize(mine)
    assert yaml.safe_load(configuration(documents))["clusters"] == [{"name": "shop"}]
    assert config_map(documents) != config_map(plain)
    image, before = container_of(documents)["image"], container_of(plain)["image"]
    assert image == before.replace("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "registry.example.com") != before
    role = the("ServiceAccount", documents)["metadata"].pop("annotations")
    assert role == {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/offramp"}
    # Nothing else is changed by it.
    same = yaml.safe_dump_all(documents).replace(image, before).replace("name: shop", "name: blue")
    same = same.replace(config_map(documents), config_map(plain))
    assert objects(same) == plain


def test_the_worker_takes_the_example():
    """As far as it goes without a cluster around it."""
    with open_folder() as folder, RestrictedWorker(folder, configuration(kustomize())) as worker:
        code, said = worker.ended()
    assert code == 2 and said.count("offramp.yaml") == 1 and "no way in: this is no pod" in said


def test_old_configurations_can_be_told_from_those_in_use():
    text = (PLAIN / "kustomization.yaml").read_text()
    documents = kustomize()
    # A ReplicaSet has the template of its Deployment.
    (path,) = re.findall(r"get replicasets -o jsonpath='\{\.items\[\*\](.*)\}'\n", text)
    given = yaml.safe_dump(the("Deployment", documents))
    named = kubectl("label", "--local", "-f", "-", "any=label", "-o", f"jsonpath={{{path}}}", given=given)
    assert named == config_map(documents)
    ((label, value),) = re.findall(r"get configmaps -l (\S+)=(\S+) ", text)
    assert the("ConfigMap", documents)["metadata"]["labels"][label] == value


def test_the_kubeconfig_that_the_file_shows_works():
    """As a Secret with a token beside it, mounted as the chart mounts it. The certificate is left out, since the
    sandbox speaks plain HTTP."""
    text = header("remote-cluster")
    kubeconfig, values = block(text, "apiVersion: v1"), block(text, "kubeconfigSecrets:")
    assert kubeconfig["clusters"][0]["cluster"].pop("certificate-authority") == "ca.crt"
    assert kubeconfig["users"][0]["user"] == {"tokenFile": "token"}
    with open_folder() as folder, ReadableSandbox(folder) as sandbox:
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
        with RestrictedWorker(folder, mounted) as worker:
            worker.waits_until_ready()


def test_the_commands_name_what_there_is():
    text, remote = header("remote-cluster"), remote_cluster()
    assert f"-n offramp get secret {the('Secret', remote)['metadata']['name']} " in text
    (secret,) = block(text, "kubeconfigSecrets:")["kubeconfigSecrets"].values()
    assert f"create secret generic {secret} " in text
    for path in ["infra/kubernetes/remote-cluster.yaml", "infra/helm/offramp", "infra/kubernetes/generate.sh"]:
        assert path in text and (ROOT / path).exists()
    text, install = header("install"), kustomize()
    assert f"rollout status deployment/{the('Deployment', install)['metadata']['name']}\n" in text
    assert f"kubectl apply -k {PLAIN.relative_to(ROOT)}\n" in text
    for path in [CHART, PLAIN / "generate.sh"]:
        assert str(path.relative_to(ROOT)) in text and path.exists()
