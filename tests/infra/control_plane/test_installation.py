"""The chart and the plain manifests in a real cluster: its API server takes them, pods are admitted under the strictest
of the Pod Security Standards, and a change of the configuration rolls them."""

import os

import pytest
import yaml
from harness.waiting import until
from kubernetes.headers import PLAIN
from kubernetes.rendering import CHART, LEAST, VALUE_SETS, laid_over, render

NAMESPACE = PLAIN / "namespace.yaml"
# Custom resources, which this API server does not know.
CUSTOM = {"ServiceMonitor"}


@pytest.fixture
def namespace(cluster):
    """As namespace.yaml makes it."""
    cluster.kubectl("apply", "-f", NAMESPACE)
    return "offramp"


@pytest.mark.parametrize("values", [None, *VALUE_SETS], ids=lambda file: file.stem if file else "least")
def test_the_api_server_takes_what_the_chart_gives(cluster, namespace, values):
    found = render(LEAST) if values is None else render(None, "--values", values)
    known = [one for one in found if one["kind"] not in CUSTOM]
    said = cluster.apply(known, "--dry-run=server", "--validate=strict", "--namespace", namespace)
    assert said.count("(server dry run)") == len(known)


def test_the_api_server_refuses_a_misspelt_field(cluster, namespace):
    """That the test above can fail."""
    (found,) = [one for one in render(LEAST) if one["kind"] == "Deployment"]
    found["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(AssertionError, match="unknown field"):
        cluster.apply([found], "--dry-run=server", "--validate=strict", "--namespace", namespace)


@pytest.mark.parametrize(
    ("of", "asks"),
    [
        ("container", {"privileged": True, "allowPrivilegeEscalation": True}),
        ("container", {"capabilities": {"drop": []}}),
        ("container", {"runAsNonRoot": False, "runAsUser": 0}),
        ("pod", {"hostNetwork": True}),
    ],
    ids=["privileged", "capabilities", "root", "host network"],
)
def test_the_namespace_refuses_a_pod_that_asks_for_more(cluster, namespace, of, asks):
    """The worker's own pod, which is admitted, and then the same with one privilege."""
    (deployment,) = [one for one in render(LEAST) if one["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    # That of the namespace, which is there a moment after it.
    del spec["serviceAccountName"]
    cluster.kubectl("wait", "-n", namespace, "serviceaccount/default", "--for=create", "--timeout=60s")

    def apply():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, "spec": spec}
        return cluster.apply([pod], "--dry-run=server")

    assert "pod/one created" in apply()
    (spec if of == "pod" else spec["containers"][0]["securityContext"]).update(asks)
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted:latest"'):
        apply()


class Plain:
    """The way of somebody without helm: a kustomization of their own."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        kustomization = {
            "resources": [os.path.relpath(PLAIN, folder)],
            "configMapGenerator": [{"name": "offramp", "behavior": "replace", "files": ["offramp.yaml"]}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def install(self, clusters):
        file = yaml.safe_load((PLAIN / "offramp.yaml").read_text())
        (self.folder / "offramp.yaml").write_text(yaml.safe_dump(laid_over(file, clusters)))
        self.cluster.kubectl("apply", "-k", self.folder)
        self.cluster.kubectl("-n", "offramp", "rollout", "status", "deployment/offramp", "--timeout", "90s")

    def back(self):
        self.cluster.kubectl("-n", "offramp", "rollout", "undo", "deployment/offramp")
        self.cluster.kubectl("-n", "offramp", "rollout", "status", "deployment/offramp", "--timeout", "90s")

    def remove(self):
        self.cluster.kubectl("delete", "-k", self.folder, "--ignore-not-found", "--wait")


class Chart:
    def __init__(self, cluster, _):
        self.cluster = cluster
        cluster.kubectl("apply", "-f", NAMESPACE)

    def install(self, clusters):
        values = yaml.safe_dump(laid_over(LEAST, {"config": clusters}))
        words = ["upgrade", "--install", "offramp", CHART, "--namespace", "offramp", "--wait", "--timeout", "90s"]
        self.cluster.run("helm", *words, "--values", "-", given=values)

    def back(self):
        self.cluster.run("helm", "rollback", "offramp", "--namespace", "offramp", "--wait", "--timeout", "90s")

    def remove(self):
        self.cluster.run("helm", "uninstall", "offramp", "--namespace", "offramp", "--wait")


@pytest.mark.parametrize("way", [Plain, Chart])
def test_a_change_of_the_configuration_rolls_the_pods_and_can_be_taken_back(cluster, tmp_path, way):
    installation = way(cluster, tmp_path)

    def configurations():
        """What the pods that run were started with."""
        found = cluster.get("pods", "-n", "offramp", "--field-selector", "status.phase=Running")
        pods = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        assert len(pods) == 2
        volumes = [volume for pod in pods for volume in pod["spec"]["volumes"] if volume["name"] == "config"]
        (name,) = {volume["configMap"]["name"] for volume in volumes}
        text = cluster.get("configmap", name, "-n", "offramp")["data"]["offramp.yaml"]
        return [one["name"] for one in yaml.safe_load(text)["clusters"]]

    installation.install({"clusters": [{"name": "blue"}]})
    assert configurations() == ["blue"]
    installation.install({"clusters": [{"name": "shop"}]})
    assert configurations() == ["shop"]
    installation.back()
    assert configurations() == ["blue"]
    installation.remove()
    kinds = "all,serviceaccounts,clusterroles,clusterrolebindings,poddisruptionbudgets"
    ours = (kinds, "-A", "-l", "app.kubernetes.io/name=offramp")
    # The pods take a second to end.
    until("nothing is left but configurations", lambda: not cluster.get(*ours))
