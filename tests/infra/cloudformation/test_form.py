"""The form of the templates: cfn-lint, checkov, and rules of our own for what neither knows."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rules
import templates
from templates import CENTRAL, HOOKS, ROOT, VARIANTS, chosen, load

HOOK_PARAMETERS = {"ClusterName": "blue", "AutoScalingGroupNames": "workers"}


def everything():
    """Each template in each of its variants."""
    central = load(CENTRAL)
    for name, parameters in VARIANTS.items():
        yield pytest.param(chosen(central, parameters), id=f"central-{name}")
    yield pytest.param(chosen(load(HOOKS), HOOK_PARAMETERS), id="hooks")


@pytest.mark.parametrize("template", [CENTRAL, HOOKS], ids=lambda path: path.name)
def test_cfn_lint_finds_nothing(template):
    # Its advice counts too, I3510 (which resources an action knows) among it.
    lint = Path(sys.executable).with_name("cfn-lint")
    run = subprocess.run(
        [
            lint,
            "--include-checks",
            "I",
            "--regions",
            "eu-west-1",
            "us-gov-west-1",
            "cn-north-1",
            "--",
            template,
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("template", everything())
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_templates_keep_our_rules(rule, template):
    assert list(rule(template)) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkov_finds_nothing(variant, tmp_path):
    """With the conditions decided, because checkov leaves out what it cannot decide. An exception is written
    down in the template, with its reason."""
    decided = tmp_path / "central.json"
    decided.write_text(json.dumps(chosen(load(CENTRAL), VARIANTS[variant])))
    report = checkov(decided)
    assert report["results"]["failed_checks"] == []
    skipped = {(check["check_id"], check["resource"]) for check in report["results"]["skipped_checks"]}
    assert skipped == {
        ("CKV_AWS_27", "AWS::SQS::Queue.Queue"),
        ("CKV_AWS_27", "AWS::SQS::Queue.DeadLetterQueue"),
    }
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] >= 9, "checkov has looked at less than it did"


def test_checkov_can_find_something(tmp_path):
    template = chosen(load(CENTRAL), VARIANTS["irsa"])
    del template["Resources"]["Key"]["Properties"]["EnableKeyRotation"]
    statement("MoveTraffic")(template)["Resource"] = "*"
    decided = tmp_path / "central.json"
    decided.write_text(json.dumps(template))
    found = {check["check_id"] for check in checkov(decided)["results"]["failed_checks"]}
    assert found == {"CKV_AWS_7", "CKV_AWS_111"}


def checkov(path):
    """Without the network: --skip-download. What it leaves behind lies beside the template."""
    program = os.environ["E2E_CHECKOV"]
    command = [program, "--skip-download", "--framework", "cloudformation", "-o", "json", "-f", path]
    environment = os.environ | {"TMPDIR": str(path.parent)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return json.loads(run.stdout)


def resource(name):
    return lambda template: template["Resources"][name]["Properties"]


def statement(sid):
    def find(template):
        policy = resource("WorkerRole")(template)["Policies"][0]["PolicyDocument"]
        return next(statement for statement in policy["Statement"] if statement["Sid"] == sid)

    return find


def target(rule):
    return lambda template: resource(rule)(template)["Targets"][0]


def allow(policy):
    return lambda template: resource(policy)(template)["PolicyDocument"]["Statement"][0]


def hook(template):
    ((name, item),) = template["Resources"]["Fn::ForEach::Hooks"][2].items()
    return item["Properties"]


QUEUE_ARN = {"Fn::GetAtt": ["Queue", "Arn"]}
DEAD_LETTER_URL = {"Ref": "DeadLetterQueue"}

# A rule, the variant, where to change it, how, and words of the complaint.
MUTATIONS = [
    ("heartbeats_are_in_range", "hooks", hook, {"HeartbeatTimeout": 5}, "outside of 30 to 7200"),
    ("heartbeats_are_in_range", "hooks", hook, {"HeartbeatTimeout": 7201}, "outside of 30 to 7200"),
    (
        "heartbeats_are_in_range",
        "hooks",
        lambda template: template["Parameters"]["HeartbeatTimeoutSeconds"],
        {"MinValue": 5},
        "outside of 30 to 7200",
    ),
    ("hooks_can_be_outlived", "hooks", hook, {"HeartbeatTimeout": 30}, "less than the worker's hook_limit"),
    (
        "dead_letter_targets_are_arns",
        "pod-identity",
        lambda template: resource("Queue")(template)["RedrivePolicy"],
        {"deadLetterTargetArn": DEAD_LETTER_URL},
        "deadLetterTargetArn is no queue's ARN",
    ),
    (
        "dead_letter_targets_are_arns",
        "pod-identity",
        target("SpotRule"),
        {"Arn": {"Ref": "Queue"}},
        "no queue's ARN",
    ),
    (
        "dead_letter_targets_are_arns",
        "irsa",
        target("LifecycleRule"),
        {"DeadLetterConfig": {}},
        "no dead-letter queue",
    ),
    (
        "dead_letter_targets_are_arns",
        "irsa",
        target("SpotRule"),
        {"DeadLetterConfig": {"Arn": DEAD_LETTER_URL}},
        "none by its ARN",
    ),
    ("only_our_rules_send", "pod-identity", allow("QueuePolicy"), {"Principal": "*"}, "Principal is *"),
    ("only_our_rules_send", "pod-identity", allow("QueuePolicy"), {"Action": "sqs:*"}, "Action is sqs:*"),
    ("only_our_rules_send", "pod-identity", allow("QueuePolicy"), {"Resource": "*"}, "Resource is *"),
    ("only_our_rules_send", "pod-identity", allow("QueuePolicy"), {"Condition": {}}, "send to it"),
    (
        "only_our_rules_send",
        "pod-identity",
        lambda template: allow("DeadLetterQueuePolicy")(template)["Condition"]["ArnEquals"],
        {"aws:SourceArn": [{"Fn::GetAtt": ["SpotRule", "Arn"]}]},
        "send to it",
    ),
    ("only_our_rules_send", "irsa", resource("DeadLetterQueuePolicy"), {"Queues": []}, "0 statements allow"),
    (
        "plain_http_is_denied",
        "irsa",
        lambda template: resource("QueuePolicy")(template)["PolicyDocument"]["Statement"][1],
        {"Condition": {}},
        "without TLS",
    ),
    (
        "rules_give_up_in_time",
        "pod-identity",
        lambda template: target("SpotRule")(template)["RetryPolicy"],
        {"MaximumEventAgeInSeconds": 86400},
        "give up after 120 s",
    ),
    (
        "rules_give_up_in_time",
        "pod-identity",
        target("RebalanceRule"),
        {"RetryPolicy": {}},
        "give up after 3600 s",
    ),
    (
        "rules_are_of_this_account_and_region",
        "irsa",
        lambda template: resource("SpotRule")(template)["EventPattern"],
        {"account": []},
        "every account",
    ),
    (
        "dead_letters_outlive_messages",
        "pod-identity",
        resource("DeadLetterQueue"),
        {"MessageRetentionPeriod": 345600},
        "only",
    ),
    (
        "hand_overs_do_not_use_a_message_up",
        "pod-identity",
        lambda template: resource("Queue")(template)["RedrivePolicy"],
        {"maxReceiveCount": 5},
        "less than 100",
    ),
    (
        "queues_are_encrypted",
        "pod-identity",
        resource("Queue"),
        {"SqsManagedSseEnabled": False},
        "needs either",
    ),
    (
        "queues_are_encrypted",
        "own-key",
        resource("DeadLetterQueue"),
        {"KmsMasterKeyId": "alias/aws/sqs"},
        "different keys",
    ),
    (
        "queues_are_encrypted",
        "irsa",
        lambda template: resource("Key")(template)["KeyPolicy"],
        {"Statement": []},
        "does not admit EventBridge",
    ),
    (
        "queues_are_encrypted",
        "irsa",
        lambda template: resource("Key")(template)["KeyPolicy"]["Statement"][0],
        {"Principal": rules.EVENTBRIDGE},
        "does not leave the key to the account",
    ),
    (
        "alarms_name_what_they_watch",
        "irsa",
        resource("DeadLetterAlarm"),
        {"Dimensions": [{"Name": "QueueName", "Value": DEAD_LETTER_URL}]},
        "on nothing by its name",
    ),
    (
        "alarms_name_what_they_watch",
        "irsa",
        resource("OldestMessageAlarm"),
        {"TreatMissingData": "breaching"},
        "would alarm",
    ),
    (
        "alarms_name_what_they_watch",
        "pod-identity",
        resource("SpotLostAlarm"),
        {"Dimensions": [{"Name": "RuleName", "Value": {"Fn::GetAtt": ["SpotRule", "Arn"]}}]},
        "on nothing by its name",
    ),
    *(
        ("alarms_go_off_when_they_should", "pod-identity", resource(alarm), change, words)
        for alarm, change, words in [
            ("OldestMessageAlarm", {"ComparisonOperator": "LessThanThreshold"}, "ComparisonOperator is"),
            ("OldestMessageAlarm", {"Period": 3600}, "Period is"),
            ("NobodyReceivesAlarm", {"Statistic": "Maximum"}, "Statistic is"),
            ("NobodyReceivesAlarm", {"DatapointsToAlarm": 1}, "DatapointsToAlarm is"),
            ("DeadLetterAlarm", {"Threshold": 100}, "Threshold is"),
            ("DeadLetterAlarm", {"MetricName": "NumberOfMessagesSent"}, "MetricName is"),
            ("DeadLetterAlarm", {"Dimensions": [{"Value": {"Fn::GetAtt": ["Queue", "QueueName"]}}]}, "watches"),
            ("SpotLostAlarm", {"EvaluationPeriods": 5}, "EvaluationPeriods is"),
            ("LifecycleLostAlarm", {"ActionsEnabled": False}, "ActionsEnabled is"),
        ]
    ),
    (
        "alarms_go_off_when_they_should",
        "pod-identity",
        lambda template: template["Resources"],
        {"DeadLetterAlarm": {"Type": "AWS::SNS::Topic"}},
        "DeadLetterAlarm: is not there",
    ),
    (
        "what_is_lost_alarms",
        "pod-identity",
        resource("RebalanceLostAlarm"),
        {"MetricName": "Invocations"},
        "RebalanceRule: no alarm",
    ),
    ("permissions_are_narrow", "pod-identity", statement("LetGo"), {"Resource": "*"}, "could be limited to"),
    (
        "permissions_are_narrow",
        "pod-identity",
        statement("Look"),
        {"Resource": QUEUE_ARN},
        "knows no resources",
    ),
    ("permissions_are_narrow", "pod-identity", statement("Look"), {"Condition": {}}, "without any condition"),
    (
        "permissions_are_narrow",
        "pod-identity",
        statement("Receive"),
        {"Action": ["sqs:*"]},
        "there is no action",
    ),
    (
        "only_the_service_account_takes_the_role",
        "pod-identity",
        lambda template: resource("WorkerRole")(template)["AssumeRolePolicyDocument"]["Statement"][0],
        {"Condition": {}},
        "does not ask for the service account",
    ),
    (
        "only_the_service_account_takes_the_role",
        "irsa",
        resource("WorkerRole"),
        {"AssumeRolePolicyDocument": {"Fn::Sub": ['{"Statement": []}', {"Issuer": "x"}]}},
        "more or less",
    ),
    (
        "parameters_explain_themselves",
        "pod-identity",
        lambda template: template["Parameters"]["HookNames"],
        {"ConstraintDescription": None, "Description": ""},
        "no description",
    ),
    (
        "parameters_explain_themselves",
        "hooks",
        lambda template: template["Parameters"],
        {"Forgotten": {"Type": "String", "Description": "It is in no group."}},
        "not shown once",
    ),
]


@pytest.mark.parametrize(
    ("rule", "variant", "place", "change", "words"),
    MUTATIONS,
    ids=[f"{m[0]}-{n}" for n, m in enumerate(MUTATIONS)],
)
def test_a_broken_template_is_noticed(rule, variant, place, change, words):
    if variant == "hooks":
        template = chosen(load(HOOKS), HOOK_PARAMETERS)
    else:
        template = chosen(load(CENTRAL), VARIANTS[variant])
    broken = copy.deepcopy(template)
    place(broken).update(change)
    complaints = list(getattr(rules, rule)(broken))
    assert any(words in complaint for complaint in complaints), complaints


def test_every_rule_has_been_broken_once():
    assert {rule.__name__ for rule in rules.RULES} == {mutation[0] for mutation in MUTATIONS}


def test_the_variants_decide_every_condition_both_ways():
    central = load(CENTRAL)
    defaults = {name: parameter.get("Default") for name, parameter in central["Parameters"].items()}
    for name, condition in central["Conditions"].items():
        found = {templates.holds(condition, {**defaults, **variant}) for variant in VARIANTS.values()}
        assert found == {True, False}, f"{name} is always {found}"


def test_nobody_gives_the_worker_every_group_by_default():
    assert "Default" not in load(CENTRAL)["Parameters"]["AutoScalingGroupPattern"]


def test_both_templates_agree():
    """A hook with the default name is one that the rule knows, and a cluster has one name."""
    central, hooks = (load(path)["Parameters"] for path in (CENTRAL, HOOKS))
    assert hooks["HookName"]["Default"] in central["HookNames"]["Default"].split(",")
    for key in ("AllowedPattern", "ConstraintDescription"):
        assert hooks["ClusterName"][key] == central["ClusterName"][key]
        assert hooks["HookName"]["AllowedPattern"] == central["HookNames"]["AllowedPattern"]


def test_the_arithmetic_uses_the_worker_s_own_numbers():
    sample = (ROOT / "docs/samples/offramp.yaml").read_text()
    for name, seconds in (("hook_limit", rules.HOOK_LIMIT), ("patience", rules.PATIENCE)):
        ((number, unit),) = re.findall(rf"^  {name}: ([0-9]+)([smh]) # default$", sample, re.M)
        assert int(number) * {"s": 1, "m": 60, "h": 3600}[unit] == seconds
    ((visibility,),) = [re.findall(r"^  visibility: ([0-9]+)s # default$", sample, re.M)]
    parameters = load(CENTRAL)["Parameters"]
    assert int(visibility) == parameters["VisibilityTimeoutSeconds"]["Default"]
    # Ten minutes more than the longest job that is in order.
    assert parameters["OldestMessageAlarmSeconds"]["Default"] == max(rules.HOOK_LIMIT, rules.PATIENCE) + 600
