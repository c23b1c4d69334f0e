"""What the chart makes: accepted by Kubernetes' own schemas, and safe."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from rendering import CHART, LEAST, ROOT, VALUE_SETS, container_of, helm, kinds, laid_over, pod_of, render, the

# The oldest that the chart installs on, some between, and the newest that the schemas know.
VERSIONS = ["1.27", "1.31", "1.34", "1.37"]
SERVICE_MONITOR = json.loads((Path(__file__).parent / "servicemonitor.schema.json").read_text())


def check(document, version):
    if document["kind"] == "ServiceMonitor":
        jsonschema.validate(document, SERVICE_MONITOR)
    else:
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_the_versions_are_those_of_the_chart():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert VERSIONS[-1] == kubernetes_validate.latest_version().rsplit(".", 1)[0]
    workspace = [line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")]
    assert workspace == [f'version = "{chart["version"]}"'] == [f'version = "{chart["appVersion"]}"']


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_helm_lints_it(values):
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_the_schemas_of_kubernetes_take_it(values, version):
    documents = render(None, "--values", values, "--kube-version", version)
    assert documents
    for document in documents:
        check(document, version)


def test_a_misspelt_field_would_be_found():
    documents = render(LEAST)
    pod_of(documents)["terminationGracePeriodsSeconds"] = 30
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodsSeconds"):
        check(the("Deployment", documents), VERSIONS[-1])
    (monitor,) = [d for d in render(laid_over(LEAST, {"serviceMonitor": {"create": True}}))
                  if d["kind"] == "ServiceMonitor"]
    monitor["spec"]["endpoints"][0]["portt"] = "admin"
    with pytest.raises(jsonschema.ValidationError, match="portt"):
        check(monitor, VERSIONS[-1])


def test_too_old_a_cluster_is_refused():
    done = helm("template", CHART, "--kube-version", "1.26", values=LEAST)
    assert "incompatible with Kubernetes v1.26" in done.stderr


def test_which_objects_there_are():
    least = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "PodDisruptionBudget", "Service",
             "ServiceAccount"]
    assert kinds(render(LEAST)) == least
    more = {"serviceMonitor": {"create": True}, "networkPolicy": {"create": True}}
    assert kinds(render(laid_over(LEAST, more))) == sorted([*least, "NetworkPolicy", "ServiceMonitor"])
    none = {"serviceAccount": {"create": False, "name": "mine"}, "rbac": {"create": False},
            "podDisruptionBudget": {"create": False}}
    assert kinds(render(laid_over(LEAST, none))) == ["ConfigMap", "Deployment", "Service"]
    assert kinds(render({"mode": "remote-cluster"})) == [
        "ClusterRole", "ClusterRoleBinding", "Secret", "ServiceAccount"]


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_objects_point_at_each_other(values):
    documents = render(None, "--values", values)
    account = the("ServiceAccount", documents)["metadata"]
    if bindings := [d for d in documents if d["kind"] == "ClusterRoleBinding"]:
        assert bindings[0]["roleRef"]["name"] == the("ClusterRole", documents)["metadata"]["name"]
        subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        assert bindings[0]["subjects"] == [subject]
    if secrets := [d for d in documents if d["kind"] == "Secret"]:
        annotations = secrets[0]["metadata"]["annotations"]
        assert annotations == {"kubernetes.io/service-account.name": account["name"]}
        return
    deployment = the("Deployment", documents)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        the("PodDisruptionBudget", documents)["spec"]["selector"]["matchLabels"],
        the("Service", documents)["spec"]["selector"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod_of(documents)["topologySpreadConstraints"]),
        *(d["spec"]["podSelector"]["matchLabels"] for d in documents if d["kind"] == "NetworkPolicy"),
    ]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    service = the("Service", documents)
    for monitor in (d for d in documents if d["kind"] == "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
        assert monitor["spec"]["endpoints"][0]["honorLabels"] is True, "our label `cluster` is ours"
    pod = pod_of(documents)
    assert pod["serviceAccountName"] == account["name"]
    mounts = {mount["name"] for mount in container_of(documents)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    (config,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert config == the("ConfigMap", documents)["metadata"]["name"]
    # The port is named in one place, the worker's own file.
    (port,) = container_of(documents)["ports"]
    listen = yaml.safe_load(the("ConfigMap", documents)["data"]["offramp.yaml"])["admin"]["listen"]
    assert listen.endswith(f":{port['containerPort']}")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["ports"][0]["port"] == port["containerPort"]
    for policy in (d for d in documents if d["kind"] == "NetworkPolicy"):
        assert policy["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]


@pytest.mark.parametrize("values", [path for path in VALUE_SETS if "remote" not in path.stem], ids=lambda p: p.stem)
def test_the_pod_may_do_nothing_that_it_need_not(values):
    documents = render(None, "--values", values)
    pod, container = pod_of(documents), container_of(documents)
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    assert all("hostPort" not in port for port in container["ports"])
    assert all(volume.keys() & {"configMap", "secret"} for volume in pod["volumes"])
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    # A kubeconfig is read by the worker's group (fsGroup), and by nobody else.
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert [oct(secret["defaultMode"]) for secret in secrets] == ["0o440"] * len(secrets)
    assert secrets or values.stem not in ("clusters-values", "everything-values")
    assert pod["enableServiceLinks"] is False
    assert "cpu" not in container["resources"]["limits"]
    assert the("ServiceAccount", documents)["automountServiceAccountToken"] is False
    # Whoever serves other clusters alone needs no way into this one.
    has_role = any(document["kind"] == "ClusterRole" for document in documents)
    assert pod["automountServiceAccountToken"] is has_role


def test_the_clusters_alone_need_no_rights_here():
    documents = render(None, "--values", CHART / "ci/clusters-values.yaml")
    assert "ClusterRole" not in kinds(documents)
    assert pod_of(documents)["automountServiceAccountToken"] is False


def test_replicas_are_spread_and_kept():
    documents = render(LEAST)
    spec = the("Deployment", documents)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod_of(documents)["priorityClassName"] == "system-cluster-critical"
    spread = {
        s["topologyKey"]: (s["whenUnsatisfiable"], s["maxSkew"], s.get("minDomains"))
        for s in pod_of(documents)["topologySpreadConstraints"]
    }
    # Without two domains at least, both replicas may be on the only node that fits.
    assert spread == {
        "kubernetes.io/hostname": ("DoNotSchedule", 1, 2),
        "topology.kubernetes.io/zone": ("ScheduleAnyway", 1, None),
    }
    # Without it the first pod of a rollout would find no node.
    assert [s["matchLabelKeys"] for s in pod_of(documents)["topologySpreadConstraints"]] == [["pod-template-hash"]] * 2
    # The usual taint of a group that is kept for system pods, where replicas are kept best.
    assert pod_of(documents)["tolerations"] == [{"key": "CriticalAddonsOnly", "operator": "Exists"}]
    budget = the("PodDisruptionBudget", documents)["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    preferred = pod_of(documents)["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    avoided = {e["key"]: (e["operator"], e["values"]) for p in preferred for e in p["preference"]["matchExpressions"]}
    assert avoided == {
        "eks.amazonaws.com/capacityType": ("NotIn", ["SPOT"]),
        "karpenter.sh/capacity-type": ("NotIn", ["spot"]),
    }


def test_the_probes_leave_the_time_that_the_worker_needs():
    """The path, the seconds between tries, how many may fail, and how long one may take."""
    container = container_of(render(LEAST))
    table = {
        # 2 s × 30: the 60 s that finding credentials may take.
        "startupProbe": ("/live", 2, 30, 5),
        # 10 s × 3, after the 60 s without a receive that make it 503: started anew after 90 s.
        "livenessProbe": ("/live", 10, 3, 5),
        # 5 s × 3: one slow answer is none. It decides about rollouts alone, which can wait 15 s.
        "readinessProbe": ("/ready", 5, 3, 5),
    }
    for name, (path, period, tries, limit) in table.items():
        assert container[name] == {
            "httpGet": {"path": path, "port": "admin"},
            "periodSeconds": period,
            "failureThreshold": tries,
            "timeoutSeconds": limit,
        }, name


def test_prometheus_sees_each_replica_also_one_that_is_not_ready():
    documents = render(laid_over(LEAST, {"serviceMonitor": {"create": True}}))
    service = the("Service", documents)["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    (endpoint,) = the("ServiceMonitor", documents)["spec"]["endpoints"]
    # The 120 s of a spot notice are seen eight times, and one scrape is over before the next.
    assert (endpoint["path"], endpoint["interval"], endpoint["scrapeTimeout"]) == ("/metrics", "15s", "10s")


def test_the_memory_is_enough_for_the_measured_storm():
    peak = re.search(r"([0-9]+) MiB at its peak", (ROOT / "README.md").read_text())
    resources = container_of(render(LEAST))["resources"]
    request, limit = (int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    # The storm and a quarter more, so that it does not make the pod a candidate for eviction; the limit twice that.
    assert int(peak[1]) * 1.25 <= request == limit / 2


def test_each_configuration_is_a_configmap_of_its_own():
    """A change rolls the pods, and those of before find the file of before."""
    def metadata(values):
        return the("ConfigMap", render(values))["metadata"]

    changed = laid_over(LEAST, {"config": {"rebalance": "none"}})
    more = laid_over(LEAST, {"replicas": 3})
    assert metadata(LEAST) == metadata(more) != metadata(changed)
    assert metadata(LEAST)["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_releases_of_one_name_in_two_namespaces_share_nothing():
    """What belongs to no namespace would be refused the second time."""
    def unbound(namespace):
        documents = render(LEAST, "--namespace", namespace)
        return {(d["kind"], d["metadata"]["name"]) for d in documents if "namespace" not in d["metadata"]}

    assert unbound("blue") and not unbound("blue") & unbound("green")


def test_the_image_is_what_was_asked_for():
    def image(**values):
        return container_of(render(laid_over(LEAST, {"image": values})))["image"]

    digest = "sha256:" + "0" * 64
    assert image() == "registry.example.com/offramp:0.2.0"
    assert image(tag="1.2.3") == "registry.example.com/offramp:1.2.3"
    assert image(tag="1.2.3", digest=digest) == f"registry.example.com/offramp@{digest}"


def test_the_network_policy_lets_out_what_is_needed_and_in_what_is_named():
    values = laid_over(LEAST, {"networkPolicy": {"create": True}})
    policy = the("NetworkPolicy", render(values))["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    out = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert out == {("TCP", 443), ("TCP", 6443), ("UDP", 53), ("TCP", 53), ("TCP", 80)}
    # Plain HTTP goes to the agent of EKS Pod Identity and nowhere else.
    (plain,) = [rule for rule in policy["egress"] if {"port": 80, "protocol": "TCP"} in rule["ports"]]
    assert [peer["ipBlock"]["cidr"] for peer in plain["to"]] == ["169.254.170.23/32", "fd00:ec2::23/128"]
    # The node's role, for whom it is the way to AWS.
    both = the("NetworkPolicy", render(laid_over(values, {"networkPolicy": {"instanceMetadata": True}})))["spec"]
    (metadata,) = [rule for rule in both["egress"] if rule not in policy["egress"]]
    assert [peer["ipBlock"]["cidr"] for peer in metadata["to"]] == ["169.254.169.254/32", "fd00:ec2::254/128"]
    assert metadata["ports"] == [{"port": 80, "protocol": "TCP"}]
    prometheus = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = the("NetworkPolicy", render(laid_over(values, {"networkPolicy": {"metricsFrom": prometheus}})))["spec"]
    assert [rule["from"] for rule in policy["ingress"]] == [prometheus]


def notes(values, folder):
    """NOTES.txt as `helm install` would show it. helm shows it only where it can reach a cluster, so that the text is
    put into an object here."""
    chart = folder / "offramp"
    shutil.copytree(CHART, chart)
    (chart / "templates/NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates/notes.yaml").write_text('notes: |\n{{ tpl (.Files.Get "notes.txt") . | indent 2 }}\n')
    done = helm("template", "offramp", chart, "--namespace", "tools", "--show-only", "templates/notes.yaml",
                values=values)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["notes"]


def test_the_notes_say_how_to_see_that_it_works(tmp_path):
    text = notes(LEAST, tmp_path)
    for words in ["-n tools rollout status deployment/offramp", "port-forward deployment/offramp 9090",
                  "http://127.0.0.1:9090/ready", "serves blue.", "EKS Pod"]:
        assert words in text
    assert "fewer than two replicas" not in text


def test_the_notes_fit_the_values(tmp_path):
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/offramp"}
    one = laid_over(LEAST, {"replicas": 1, "serviceAccount": {"annotations": role}})
    text = notes(one, tmp_path)
    assert "fewer than two replicas" in text and "EKS Pod" not in text


def test_the_notes_of_a_remote_cluster_name_its_token(tmp_path):
    values = {"mode": "remote-cluster"}
    name = the("Secret", render(values))["metadata"]["name"]
    assert f"get secret {name} -o jsonpath" in notes(values, tmp_path)
