"""Values that helm refuses, and those that the worker takes."""

import json
import re

import jsonschema
import pytest
import yaml

from harness.loopback import status_and_text_of
from processes import ReadableSandbox, RestrictedWorker, open_folder
from rendering import (
    CHART, LEAST, ROOT, VALUE_SETS, configuration, container_of, laid_over, refusal, render, the)

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
WORKERS = [path for path in VALUE_SETS if "remote" not in path.stem]

# What is laid over good values, and a word of the refusal.
BAD = [
    ({"replica": 2}, "replica"),
    ({"mode": "agent"}, "mode"),
    ({"image": {"repository": ""}}, "repository"),
    ({"image": {"digest": "sha256:abc"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"replicas": "2"}, "replicas"),
    ({"replicas": -1}, "replicas"),
    ({"serviceAccount": {"annotation": {}}}, "annotation"),
    ({"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": 7}}}, "role-arn"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ({"terminationGracePeriodSeconds": 10}, "terminationGracePeriodSeconds"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
    ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "maxUnavailable"),
    ({"topologySpreadConstraints": [{"topologyKey": "a", "maxSkew": 1}]}, "whenUnsatisfiable"),
    (
        {"topologySpreadConstraints": [
            {"topologyKey": "a", "maxSkew": 1, "minDomains": 2, "whenUnsatisfiable": "ScheduleAnyway"}]},
        "whenUnsatisfiable",
    ),
    ({"podLabels": {"app.kubernetes.io/name": "nodes"}}, "podLabels"),
    ({"podLabels": {"app.kubernetes.io/instance": "nodes"}}, "podLabels"),
    ({"podLabels": {"example.com/cost": 7}}, "podLabels"),
    ({"env": [{"name": "OFFRAMP_QUEUE_URL", "value": "x"}]}, "env"),
    ({"env": [{"name": "HTTPS_PROXY", "value": 7}]}, "env"),
    ({"serviceMonitor": {"interval": "often"}}, "interval"),
    ({"networkPolicy": {"egressPorts": []}}, "egressPorts"),
    ({"networkPolicy": {"egressPorts": [70000]}}, "egressPorts"),
    ({"kubeconfigSecrets": {"Green": "a"}}, "Green"),
    ({"kubeconfigSecrets": {"green": "a"}}, "no cluster of config.clusters"),
    ({"config": {"queue": {"url": None}}}, "url"),
    ({"config": {"queue": {"url": "offramp"}}}, "url"),
    ({"config": {"queue": {"url": "https://user:secret@sqs.example.com/1/a"}}}, "url"),
    ({"config": {"queue": {"uri": "https://sqs.eu-west-1.amazonaws.com/111122223333/offramp"}}}, "uri"),
    ({"config": {"queue": {"without_dead_letter_queue": "ignore"}}}, "without_dead_letter_queue"),
    ({"config": {"aws": {"region": "Ireland"}}}, "region"),
    ({"config": {"aws": {"access_key": "x"}}}, "access_key"),
    ({"config": {"clusters": []}}, "clusters"),
    ({"config": {"clusters": [{"kubeconfig": "/etc/offramp/kubeconfigs/a/b"}]}}, "name"),
    ({"config": {"clusters": [{"name": "a", "kubeconfig": "/home/a/.kube/config"}]}}, "kubeconfig"),
    ({"config": {"clusters": [{"name": "a", "context": "b"}]}}, "kubeconfig"),
    ({"config": {"clusters": [{"name": "a", "in_cluster": False}]}}, "in_cluster"),
    ({"config": {"clusters": [{"name": "a"}, {"name": "b"}]}}, "a and b have no kubeconfig"),
    ({"config": {"clusters": [{"name": "a", "kubeconfig": "/etc/offramp/kubeconfigs/a/b"}]}}, "nothing is mounted"),
    ({"config": {"hooks": {"names": "offramp-terminate"}}}, "names"),
    ({"config": {"target_groups": ["k8s-web"]}}, "target_groups"),
    ({"config": {"rebalance": "drain"}}, "rebalance"),
    ({"config": {"timing": {"deadline_margin": 15}}}, "deadline_margin"),
    ({"config": {"timing": {"deadline_margin": "15"}}}, "deadline_margin"),
    ({"config": {"timing": {"margin": "15s"}}}, "margin"),
    ({"config": {"ingress_daemon_sets": ["controller"]}}, "ingress_daemon_sets"),
    ({"config": {"foreign_messages": "keep"}}, "foreign_messages"),
    ({"config": {"foreign_hold": "a minute"}}, "foreign_hold"),
    ({"config": {"messages": "later"}}, "messages"),
    ({"config": {"intake": {"permits": 0}}}, "permits"),
    ({"config": {"jobs": {"most": 1.5}}}, "most"),
    ({"config": {"jobs": {"most": 1000000}}}, "most"),
    ({"config": {"lease": {"visibility": 30}}}, "visibility"),
    ({"config": {"admin": {"listen": "127.0.0.1:9090"}}}, "listen"),
    ({"config": {"admin": {"listen": "0.0.0.0:0"}}}, "listen"),
    ({"config": {"admin": {"listen": "0.0.0.0:65536"}}}, "listen"),
    ({"config": {"admin": {"listen": "[::]:99999"}}}, "listen"),
    ({"config": {"log": {"level": "verbose"}}}, "level"),
    ({"config": {"scope": {"group_tag": "=yes"}}}, "group_tag"),
    ({"config": {"policies": {}}}, "policies"),
]


@pytest.mark.parametrize("change, words", BAD, ids=[json.dumps(change) for change, _ in BAD])
def test_bad_values_are_refused(change, words):
    assert words in refusal(laid_over(LEAST, change))


def test_the_least_is_taken_and_less_is_not():
    assert render(LEAST)
    said = refusal({})
    for words in ["repository", "queue", "clusters"]:
        assert words in said


# Report 17, estahn/k8s-image-swapper#132, alphagov/govuk-helm-charts#3190, cloudposse-archives/helmfiles#281: what --set
# makes of digits is a number, and of `true` a boolean. Said at once, and never rendered as 1.11122223333e+11.
SET_WRONG = [
    ("config.clusters[0].name=111122223333", r"/config/clusters/0/name.*: got number, want string"),
    ("config.hooks.names[0]=111122223333", r"/config/hooks/names/0.*: got number, want string"),
    ("image.tag=20261129", r"/image/tag.*: got number, want string"),
    ("nodeSelector.dedicated=true", r"/nodeSelector/dedicated.*: got boolean, want string"),
    ("config.timing.hook_limit=3600", r"/config/timing/hook_limit.*: got number, want string"),
]


@pytest.mark.parametrize("words, said", SET_WRONG, ids=[words for words, _ in SET_WRONG])
def test_report_17_a_number_that_should_be_a_text_is_refused(words, said):
    assert re.search(said, refusal(LEAST, "--set", words))


def test_report_17_a_time_without_a_unit_is_refused():
    """As a text, too: only the unit makes it a time."""
    assert "hook_limit" in refusal(LEAST, "--set-string", "config.timing.hook_limit=3600")
    assert render(LEAST, "--set", "config.timing.hook_limit=3600s")


def test_report_17_a_leading_zero_stays():
    url = "https://sqs.eu-west-1.amazonaws.com/012345678901/q"
    text = configuration(render(LEAST, "--set", f"config.queue.url={url}"))
    assert yaml.safe_load(text)["queue"]["url"] == url


def test_report_17_roles_and_target_groups_of_other_partitions_are_taken():
    role = "arn:aws-cn:iam::111122223333:role/offramp"
    documents = render(LEAST, "--set", rf"serviceAccount.annotations.eks\.amazonaws\.com/role-arn={role}")
    assert the("ServiceAccount", documents)["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == role
    group = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:011122223333:targetgroup/a/b"
    text = configuration(render(LEAST, "--set", f"config.target_groups[0]={group}"))
    assert yaml.safe_load(text)["target_groups"] == [group]


def test_report_17_texts_that_look_like_something_else_stay_texts(tmp_path):
    """Quoted in the values file, and quoted in the ConfigMap, so that no reader of YAML makes numbers of them."""
    clusters = [{"name": "0123"}, {"name": "true", "kubeconfig": "/etc/offramp/kubeconfigs/true/kubeconfig"}]
    names = ["1e3", "null", "~", "0x10"]
    file = tmp_path / "values.yaml"
    # JSON quotes every text. YAML as Python writes it leaves 1e3 bare, which is a number to helm.
    file.write_text(json.dumps(laid_over(LEAST, {
        "image": {"tag": "1e3"},
        "kubeconfigSecrets": {"true": "a"},
        "config": {"clusters": clusters, "hooks": {"names": names}},
    })))
    documents = render(None, "--values", file)
    text = configuration(documents)
    read = yaml.safe_load(text)
    assert read["clusters"] == clusters and read["hooks"]["names"] == names
    for word in [*names, *(cluster["name"] for cluster in clusters)]:
        assert re.search(f"""(["']){re.escape(word)}\\1""", text), f"{word} stands there without quotes"
    assert container_of(documents)["image"] == "registry.example.com/offramp:1e3"


def fields(schema, path=""):
    """Every field that a part of the schema allows."""
    if "$ref" in schema:
        return fields(SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]], path)
    if schema.get("type") == "array":
        return fields(schema["items"], path + "[]")
    inner = schema.get("properties")
    if inner is None:
        return {path}
    return set().union(*(fields(below, f"{path}.{name}") for name, below in inner.items()))


def given(value, path=""):
    """Every field that a document has."""
    if isinstance(value, dict):
        return set().union(*(given(below, f"{path}.{name}") for name, below in value.items()))
    if isinstance(value, list):
        return set().union(*(given(below, path + "[]") for below in value))
    return {path}


def test_the_chart_knows_exactly_the_fields_of_the_worker():
    # A test of the worker sees to it that this sample shows every field.
    sample = yaml.safe_load((ROOT / "docs/samples/offramp.yaml").read_text())
    assert fields(SCHEMA["definitions"]["config"]) == given(sample)
    everything = yaml.safe_load((CHART / "ci/everything-values.yaml").read_text())
    assert given(everything["config"]) == given(sample), "ci/everything-values.yaml sets every field"


def test_the_sample_of_the_worker_fits_but_for_its_paths():
    sample = yaml.safe_load((ROOT / "docs/samples/offramp.yaml").read_text())
    for cluster in sample["clusters"]:
        if "kubeconfig" in cluster:
            cluster["kubeconfig"] = "/etc/offramp/kubeconfigs/green/kubeconfig"
    schema = SCHEMA["definitions"]["config"] | {"definitions": SCHEMA["definitions"]}
    jsonschema.Draft7Validator(schema).validate(sample)


def test_every_value_has_its_place_in_values_yaml():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(SCHEMA["properties"]) - {"global"}
    for name, part in SCHEMA["properties"].items():
        if name != "config" and "properties" in part:
            assert set(values[name]) == set(part["properties"]), name


# As in a pod, with nobody there: neither the API server nor the queue is reached, or could be.
NOBODY = {
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "9",
    # Goes before `aws.endpoint_url`.
    "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
}


@pytest.mark.parametrize("values", WORKERS, ids=lambda path: path.stem)
def test_the_worker_takes_the_rendered_configuration(values):
    """It would report every wrong value and end. What is right is served: each cluster by its name, although neither
    the service account nor the mounted kubeconfigs are here."""
    text = configuration(render(None, "--values", values))
    with open_folder() as folder, RestrictedWorker(folder, text, **NOBODY) as worker:
        worker.line("opening queue")
        _, answer = status_and_text_of(f"http://{worker.admin()}/ready")
    clusters = {f"cluster {cluster['name']}" for cluster in yaml.safe_load(text)["clusters"]}
    parts = {part["name"]: part for part in json.loads(answer)}
    assert parts.keys() == {"queue"} | clusters
    for name in clusters:
        assert re.search("kubeconfig /etc/offramp/kubeconfigs/|service account of this pod", parts[name]["why"]), parts


def test_a_wrong_value_would_be_seen_by_the_worker():
    text = configuration(render(LEAST)) + "rebalance: drain\n"
    with open_folder() as folder, RestrictedWorker(folder, text) as worker:
        code, said = worker.ended()
    assert code == 2 and "rebalance" in said


def test_the_worker_runs_with_the_rendered_configuration():
    """The whole way: values, chart, ConfigMap, worker. Only the admin server listens elsewhere, on 127.0.0.1."""
    with open_folder() as folder, ReadableSandbox(folder) as sandbox:
        values = laid_over(LEAST, {"config": {
            "queue": {"url": sandbox.queue}, "aws": {"region": "eu-west-1", "endpoint_url": sandbox.aws}}})
        text = configuration(render(values))
        with RestrictedWorker(folder, text, KUBECONFIG=str(sandbox.kubeconfig)) as worker:
            worker.waits_until_ready()
