"""Both stacks on ministack: created, updated, deleted, and what is then really there, asked of each service."""

import json

import pytest
from botocore.exceptions import ClientError
from harness.offramp import ACCOUNT, REGION
from templates import CENTRAL, HOOKS, OIDC_PROVIDER, VARIANTS


def attributes(emulator, url):
    return emulator.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]


def admitted(attributes):
    """The rules that may send to a queue."""
    allow, deny = json.loads(attributes["Policy"])["Statement"]
    assert (allow["Effect"], allow["Principal"]) == ("Allow", {"Service": "events.amazonaws.com"})
    assert (allow["Action"], allow["Resource"]) == ("sqs:SendMessage", attributes["QueueArn"])
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    return sorted(allow["Condition"]["ArnEquals"]["aws:SourceArn"])


def rules(emulator, stack):
    """Pattern, ARN and target of each rule of a stack."""
    events = emulator.client("events")
    found = {}
    for logical, name in emulator.physical(stack).items():
        if logical.endswith("Rule"):
            rule = events.describe_rule(Name=name)
            assert rule["State"] == "ENABLED"
            (target,) = events.list_targets_by_rule(Rule=name)["Targets"]
            found[logical] = (json.loads(rule["EventPattern"]), rule["Arn"], target)
    return found


def test_the_central_stack_is_created_updated_and_deleted(emulator):
    outputs = emulator.create("central", CENTRAL, VARIANTS["pod-identity"])
    queue = attributes(emulator, outputs["QueueUrl"])
    letters = attributes(emulator, outputs["DeadLetterQueueUrl"])
    assert queue["QueueArn"] == outputs["QueueArn"]
    assert letters["QueueArn"] == outputs["DeadLetterQueueArn"]
    assert (queue["VisibilityTimeout"], queue["MessageRetentionPeriod"]) == ("30", "345600")
    assert letters["MessageRetentionPeriod"] == "1209600"
    assert json.loads(queue["RedrivePolicy"]) == {
        "deadLetterTargetArn": letters["QueueArn"],
        "maxReceiveCount": 100,
    }
    assert queue["SqsManagedSseEnabled"] == letters["SqsManagedSseEnabled"] == "true"

    found = rules(emulator, "central")
    ages = {"LifecycleRule": 7200, "SpotRule": 120, "RebalanceRule": 3600}
    assert found.keys() == ages.keys()
    for name, (pattern, _, target) in found.items():
        assert target["Arn"] == queue["QueueArn"]
        assert target["DeadLetterConfig"] == {"Arn": letters["QueueArn"]}
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": ages[name], "MaximumRetryAttempts": 185}
        assert (pattern["account"], pattern["region"]) == ([ACCOUNT], [REGION])
    assert found["LifecycleRule"][0]["detail"] == {"LifecycleHookName": ["offramp"]}
    arns = sorted(arn for _, arn, _ in found.values())
    assert admitted(queue) == admitted(letters) == arns

    role = outputs["RoleArn"].rsplit("/", 1)[1]
    trust = emulator.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust[0]["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    tags = trust[0]["Condition"]["StringEquals"]
    assert tags["aws:RequestTag/eks-cluster-arn"] == f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue"
    assert tags["aws:RequestTag/kubernetes-service-account"] == "offramp"
    assert outputs["PodIdentityAssociation"].endswith(
        f"--cluster-name blue --namespace offramp --service-account offramp --role-arn {outputs['RoleArn']}"
    )
    by_queue = {
        s["Sid"]: s["Resource"]
        for s in emulator.policy(role)["Statement"]
        if s["Sid"] in ("Receive", "SetAside")
    }
    assert by_queue == {"Receive": queue["QueueArn"], "SetAside": letters["QueueArn"]}

    alarms = {
        logical: emulator.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]
        for logical, name in emulator.physical("central").items()
        if logical.endswith("Alarm")
    }
    watched = {name: (alarm["MetricName"], alarm["Dimensions"][0]["Value"]) for name, alarm in alarms.items()}
    rule = emulator.physical("central")
    own, other = (arn.rsplit(":", 1)[1] for arn in (queue["QueueArn"], letters["QueueArn"]))
    assert watched == {
        "OldestMessageAlarm": ("ApproximateAgeOfOldestMessage", own),
        "NobodyReceivesAlarm": ("ApproximateNumberOfMessagesVisible", own),
        "DeadLetterAlarm": ("ApproximateNumberOfMessagesVisible", other),
        "LifecycleLostAlarm": ("InvocationsFailedToBeSentToDlq", rule["LifecycleRule"]),
        "SpotLostAlarm": ("InvocationsFailedToBeSentToDlq", rule["SpotRule"]),
        "RebalanceLostAlarm": ("InvocationsFailedToBeSentToDlq", rule["RebalanceRule"]),
    }
    assert all(alarm["AlarmActions"] == [] for alarm in alarms.values())

    # What comes in while the stack is changed stays where it is.
    emulator.client("sqs").send_message(QueueUrl=outputs["QueueUrl"], MessageBody="still here")
    changed = emulator.update(
        "central",
        CENTRAL,
        {
            "ClusterName": "blue",
            "VisibilityTimeoutSeconds": "60",
            "RetentionSeconds": "172800",
            "HookNames": "offramp,drain-before-terminate",
            "RebalanceRecommendations": "disabled",
            "AutoScalingGroupPattern": "shop-*",
        },
    )
    assert changed["QueueUrl"] == outputs["QueueUrl"]
    queue, letters = (attributes(emulator, changed[name]) for name in ("QueueUrl", "DeadLetterQueueUrl"))
    assert (queue["VisibilityTimeout"], queue["MessageRetentionPeriod"]) == ("60", "172800")
    assert queue["ApproximateNumberOfMessages"] == "1"
    found = rules(emulator, "central")
    assert found.keys() == {"LifecycleRule", "SpotRule"}
    assert found["LifecycleRule"][0]["detail"] == {"LifecycleHookName": ["offramp", "drain-before-terminate"]}
    assert admitted(queue) == admitted(letters) == sorted(arn for _, arn, _ in found.values())
    (let_go,) = [s for s in emulator.policy(role)["Statement"] if s["Sid"] == "LetGo"]
    assert let_go["Resource"].endswith(":autoScalingGroupName/shop-*")

    emulator.delete("central")
    nothing_is_left(emulator, "central")


def nothing_is_left(emulator, stack):
    assert emulator.client("sqs").list_queues(QueueNamePrefix=f"{stack}-").get("QueueUrls", []) == []
    assert emulator.client("events").list_rules(NamePrefix=f"{stack}-")["Rules"] == []
    roles = emulator.client("iam").list_roles()["Roles"]
    assert [role for role in roles if role["RoleName"].startswith(f"{stack}-")] == []
    assert emulator.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{stack}-")["MetricAlarms"] == []


def test_with_irsa_a_key_of_its_own_and_a_topic(emulator):
    outputs = emulator.create("irsa", CENTRAL, VARIANTS["irsa"])
    iam = emulator.client("iam")
    role = outputs["RoleArn"].rsplit("/", 1)[1]
    (trust,) = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    issuer = OIDC_PROVIDER.split("oidc-provider/")[1]
    assert trust["Principal"] == {"Federated": OIDC_PROVIDER}
    assert trust["Condition"]["StringEquals"] == {
        f"{issuer}:aud": "sts.amazonaws.com",
        f"{issuer}:sub": "system:serviceaccount:offramp:offramp",
    }
    assert outputs["ServiceAccountAnnotation"] == f"eks.amazonaws.com/role-arn: {outputs['RoleArn']}"

    for name in ("QueueUrl", "DeadLetterQueueUrl"):
        assert attributes(emulator, outputs[name])["KmsMasterKeyId"] == outputs["KeyArn"]
    kms = emulator.client("kms")
    policy = json.loads(kms.get_key_policy(KeyId=outputs["KeyArn"], PolicyName="default")["Policy"])
    (events,) = [s for s in policy["Statement"] if s["Principal"] == {"Service": "events.amazonaws.com"}]
    assert events["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    # Whatever the names of the rules are: CloudFormation cuts what it makes of a long stack name.
    assert events["Condition"]["ArnLikeIfExists"] == {"aws:SourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/*"}
    assert events["Condition"]["StringEqualsIfExists"] == {"aws:SourceAccount": ACCOUNT}
    assert kms.get_key_rotation_status(KeyId=outputs["KeyArn"])["KeyRotationEnabled"]

    statements = {s["Sid"]: s for s in emulator.policy(role)["Statement"]}
    assert statements["Unlock"]["Resource"] == outputs["KeyArn"]
    assert statements["Unlock"]["Condition"] == {
        "StringEquals": {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"}
    }
    tagged = {"StringEquals": {"aws:ResourceTag/offramp.sh/enabled": "true"}}
    assert statements["LetGo"]["Condition"] == tagged
    assert "group_tag: offramp.sh/enabled=true" in outputs["Configuration"]
    assert "Environment" not in outputs, "variables cannot say the tag"
    for alarm in emulator.client("cloudwatch").describe_alarms(AlarmNamePrefix="irsa-")["MetricAlarms"]:
        assert alarm["AlarmActions"] == alarm["OKActions"] == [VARIANTS["irsa"]["AlarmTopicArn"]]

    emulator.delete("irsa")
    nothing_is_left(emulator, "irsa")
    assert kms.describe_key(KeyId=outputs["KeyArn"])["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_a_stack_moves_to_irsa_and_to_a_key_and_back(emulator):
    """As docs/install.md does it: the second deployment of the same stack. What is in the queue stays."""
    outputs = emulator.create("moves", CENTRAL, VARIANTS["pod-identity"])
    sqs = emulator.client("sqs")
    sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody="still here")
    principals, keys = [], []
    for variant in ("irsa", "pod-identity"):
        moved = emulator.update("moves", CENTRAL, VARIANTS[variant])
        kept = ("QueueUrl", "DeadLetterQueueUrl", "RoleArn")
        assert [moved[name] for name in kept] == [outputs[name] for name in kept]
        role = moved["RoleArn"].rsplit("/", 1)[1]
        found = emulator.client("iam").get_role(RoleName=role)["Role"]
        (trust,) = found["AssumeRolePolicyDocument"]["Statement"]
        principals.append(trust["Principal"])
        sids = {statement["Sid"] for statement in emulator.policy(role)["Statement"]}
        for name in ("QueueUrl", "DeadLetterQueueUrl"):
            queue = attributes(emulator, moved[name])
            keys.append((queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled"), "Unlock" in sids))
        assert attributes(emulator, moved["QueueUrl"])["ApproximateNumberOfMessages"] == "1"
        if variant == "irsa":
            key = moved["KeyArn"]
            assert moved["ServiceAccountAnnotation"].endswith(moved["RoleArn"])
        else:
            assert "KeyArn" not in moved and "PodIdentityAssociation" in moved
    assert principals == [{"Federated": OIDC_PROVIDER}, {"Service": "pods.eks.amazonaws.com"}]
    assert keys == [(key, None, True)] * 2 + [(None, "true", False)] * 2
    emulator.delete("moves")
    nothing_is_left(emulator, "moves")


@pytest.fixture
def groups(emulator):
    autoscaling = emulator.client("autoscaling")
    names = ["shop-workers", "shop-spot", "shopspot"]
    for name in names:
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName="workers",
            MinSize=0,
            MaxSize=3,
            AvailabilityZones=["eu-west-1a"],
        )
    yield names
    for name in names:
        autoscaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def hooks(emulator, group):
    return emulator.client("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName=group)[
        "LifecycleHooks"
    ]


def hook(group, **changes):
    return {
        "AutoScalingGroupName": group,
        "LifecycleHookName": "offramp",
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "HeartbeatTimeout": 300,
        "DefaultResult": "CONTINUE",
        "NotificationMetadata": "blue",
        **changes,
    }


def test_the_hooks_stack_is_created_updated_and_deleted(emulator, groups):
    first, second, _ = groups
    outputs = emulator.create(
        "hooks", HOOKS, {"ClusterName": "blue", "AutoScalingGroupNames": f"{first},{second}"}
    )
    assert outputs == {"HookName": "offramp", "ClusterName": "blue"}
    for group in (first, second):
        assert hooks(emulator, group) == [hook(group)]

    # The first of two is taken off the list: the second keeps its hook.
    emulator.update(
        "hooks",
        HOOKS,
        {"ClusterName": "blue", "AutoScalingGroupNames": second, "HeartbeatTimeoutSeconds": "600"},
    )
    assert hooks(emulator, first) == []
    assert hooks(emulator, second) == [hook(second, HeartbeatTimeout=600)]

    # Under another name it is another hook, and the old one goes.
    emulator.update(
        "hooks",
        HOOKS,
        {"ClusterName": "blue", "AutoScalingGroupNames": second, "HookName": "drain-before-terminate"},
    )
    assert hooks(emulator, second) == [hook(second, LifecycleHookName="drain-before-terminate")]

    emulator.delete("hooks")
    assert hooks(emulator, second) == []


def test_wrong_parameters_are_refused_with_words(emulator, groups):
    """By the pattern of the parameter, before anything is made. Two groups whose names differ in punctuation
    only cannot be in one stack: their hooks would have one logical id."""
    refused = {
        "AutoScalingGroupNames": "shop workers",
        "ClusterName": "shop!",
        "HeartbeatTimeoutSeconds": "30",
        "HookName": "a name",
    }
    for name, value in refused.items():
        parameters = {"ClusterName": "blue", "AutoScalingGroupNames": "shop-workers", name: value}
        with pytest.raises(ClientError, match=name):
            emulator.create("refused", HOOKS, parameters)
    for name, value in {
        "EncryptionKey": "alias/offramp",
        "RetentionSeconds": "3600",
        "OidcProviderArn": "blue",
    }.items():
        with pytest.raises(ClientError, match=name):
            emulator.create("refused", CENTRAL, VARIANTS["pod-identity"] | {name: value})
    with pytest.raises(ClientError, match="AutoScalingGroupPattern"):
        emulator.create("refused", CENTRAL, {"ClusterName": "blue"})
    with pytest.raises(ClientError, match="already declares"):
        emulator.create(
            "refused", HOOKS, {"ClusterName": "blue", "AutoScalingGroupNames": "shop-spot,shopspot"}
        )
    assert hooks(emulator, "shop-spot") == []
