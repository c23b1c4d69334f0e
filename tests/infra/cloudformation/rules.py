"""What has to hold for the templates and what cfn-lint does not know.

Each rule takes a template whose conditions are decided (templates.chosen) and gives a list of complaints.
"""

import itertools
import json
import re
from importlib import resources

from templates import of_type

QUEUE, RULE, QUEUE_POLICY = "AWS::SQS::Queue", "AWS::Events::Rule", "AWS::SQS::QueuePolicy"
EVENTBRIDGE = {"Service": "events.amazonaws.com"}


def arn_of(template, value, kind):
    """The name of the resource of this type whose ARN a value is, or nothing. A `!Ref` gives a URL or a name."""
    names = [name for name, _ in of_type(template, kind)]
    return next((name for name in names if value == {"Fn::GetAtt": [name, "Arn"]}), None)


def heartbeats_are_in_range(template):
    """PutLifecycleHook takes 30 to 7200 seconds."""
    for name, hook in of_type(template, "AWS::AutoScaling::LifecycleHook"):
        timeout = hook.get("HeartbeatTimeout", 3600)
        if isinstance(timeout, dict):
            parameter = template["Parameters"][timeout["Ref"]]
            least, most = parameter.get("MinValue", 0), parameter.get("MaxValue", 10**9)
            numbers = [least, parameter.get("Default", least), most]
        else:
            numbers = [timeout]
        if not all(30 <= int(number) <= 7200 for number in numbers) or numbers != sorted(numbers):
            yield f"{name}: HeartbeatTimeout can be {numbers}, outside of 30 to 7200"


def hooks_can_be_outlived(template):
    """No hook may end (100 timeouts) before the worker's hook_limit does, or its deadline were another one."""
    for name, hook in of_type(template, "AWS::AutoScaling::LifecycleHook"):
        timeout = hook["HeartbeatTimeout"]
        least = template["Parameters"][timeout["Ref"]]["MinValue"] if isinstance(timeout, dict) else timeout
        if int(least) * 100 < HOOK_LIMIT:
            yield f"{name}: 100 heartbeat timeouts of {least} s are less than the worker's hook_limit"


# timing.hook_limit and timing.patience of docs/samples/offramp.yaml; test_rules.py compares.
HOOK_LIMIT = PATIENCE = 3600
# A spot notice leads by two minutes.
SPOT_LEAD = 120
LONGEST_HEARTBEAT_TIMEOUT = 7200


def dead_letter_targets_are_arns(template):
    """cfn-lint takes a queue's URL for an ARN."""
    for name, queue in of_type(template, QUEUE):
        target = queue.get("RedrivePolicy", {}).get("deadLetterTargetArn")
        if target is not None and arn_of(template, target, QUEUE) is None:
            yield f"{name}: deadLetterTargetArn is no queue's ARN: {target}"
    for name, rule in of_type(template, RULE):
        for target in rule["Targets"]:
            if arn_of(template, target["Arn"], QUEUE) is None:
                yield f"{name}: its target is no queue's ARN: {target['Arn']}"
            letters = target.get("DeadLetterConfig", {}).get("Arn")
            if arn_of(template, letters, QUEUE) is None:
                yield f"{name}: its target has no dead-letter queue, or none by its ARN: {letters}"


def only_our_rules_send(template):
    """Each queue admits EventBridge for the rules that send to it, all of them, and nobody for anything else."""
    senders = {name: set() for name, _ in of_type(template, QUEUE)}
    for rule_name, rule in of_type(template, RULE):
        for target in rule["Targets"]:
            for arn in (target["Arn"], target.get("DeadLetterConfig", {}).get("Arn")):
                queue = arn_of(template, arn, QUEUE)
                if queue is not None:
                    senders[queue].add(rule_name)
    for queue, rules in senders.items():
        statements = statements_of(template, queue)
        allowed = [statement for statement in statements if statement["Effect"] == "Allow"]
        if len(allowed) != 1:
            yield f"{queue}: {len(allowed)} statements allow something, not one"
            continue
        allow = allowed[0]
        named = allow.get("Condition", {}).get("ArnEquals", {}).get("aws:SourceArn", [])
        admitted = {arn_of(template, arn, RULE) for arn in named}
        wanted = {
            "Principal": EVENTBRIDGE,
            "Action": "sqs:SendMessage",
            "Resource": {"Fn::GetAtt": [queue, "Arn"]},
        }
        for key, value in wanted.items():
            if allow.get(key) != value:
                yield f"{queue}: {key} is {allow.get(key)}, not {value}"
        if list(allow.get("Condition", {})) != ["ArnEquals"] or admitted != rules:
            yield f"{queue}: admits the rules {admitted}, and {rules} send to it"


def plain_http_is_denied(template):
    for queue, _ in of_type(template, QUEUE):
        denied = [
            statement
            for statement in statements_of(template, queue)
            if statement["Effect"] == "Deny"
            and statement["Principal"] == "*"
            and statement["Action"] == "sqs:*"
            and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        ]
        if len(denied) != 1:
            yield f"{queue}: calls without TLS are not denied"


def statements_of(template, queue):
    return [
        statement
        for _, policy in of_type(template, QUEUE_POLICY)
        if {"Ref": queue} in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def rules_give_up_in_time(template):
    """An event that is older than what it announces is not delivered; a younger one is tried to the end."""
    ages = {
        "EC2 Instance-terminate Lifecycle Action": LONGEST_HEARTBEAT_TIMEOUT,
        "EC2 Spot Instance Interruption Warning": SPOT_LEAD,
        # Two minutes ahead, as Spot is.
        "EC2 Capacity Reservation Instance Interruption Warning": SPOT_LEAD,
        "EC2 Interruptible Capacity Reservation Instance Interruption Warning": SPOT_LEAD,
        "EC2 Instance Rebalance Recommendation": PATIENCE,
    }
    for name, rule in of_type(template, RULE):
        for kind, target in itertools.product(rule["EventPattern"]["detail-type"], rule["Targets"]):
            retry = target.get("RetryPolicy", {})
            if retry != {"MaximumEventAgeInSeconds": ages[kind], "MaximumRetryAttempts": 185}:
                yield f"{name}: the retry policy is {retry}, for {kind} it should give up after {ages[kind]} s"


def rules_are_of_this_account_and_region(template):
    """Of others nothing could be answered: the worker has no role there."""
    for name, rule in of_type(template, RULE):
        pattern = rule["EventPattern"]
        for key, pseudo in (("account", "AWS::AccountId"), ("region", "AWS::Region")):
            if pattern.get(key) != [{"Ref": pseudo}]:
                yield f"{name}: takes events of every {key}"


def dead_letters_outlive_messages(template):
    """A message that SQS moves keeps its age."""
    for name, queue in of_type(template, QUEUE):
        target = queue.get("RedrivePolicy", {}).get("deadLetterTargetArn")
        letters = arn_of(template, target, QUEUE)
        if letters is None:
            continue
        retention = queue["MessageRetentionPeriod"]
        if isinstance(retention, dict):
            retention = template["Parameters"][retention["Ref"]]["MaxValue"]
        kept = dict(of_type(template, QUEUE))[letters]["MessageRetentionPeriod"]
        if int(kept) <= int(retention):
            yield f"{name}: keeps messages for {retention} s, and its dead-letter queue for {kept} s only"


def hand_overs_do_not_use_a_message_up(template):
    """Every receive counts, and every hand-over is one."""
    queues = dict(of_type(template, QUEUE))
    letters = {
        arn_of(template, queue.get("RedrivePolicy", {}).get("deadLetterTargetArn"), QUEUE)
        for queue in queues.values()
    }
    for name in queues.keys() - letters:
        count = queues[name].get("RedrivePolicy", {}).get("maxReceiveCount", 0)
        if int(count) < 100:
            yield f"{name}: maxReceiveCount is {count}, less than 100"


def queues_are_encrypted(template):
    """By SQS's keys or by one key; where the key is made here, EventBridge may use it, and the account decides about
    everybody else. KMS refuses a key that nobody could administer."""
    keys = []
    for name, queue in of_type(template, QUEUE):
        key = queue.get("KmsMasterKeyId")
        keys.append(key)
        if (queue.get("SqsManagedSseEnabled") is True) == (key is not None):
            yield f"{name}: needs either SqsManagedSseEnabled or KmsMasterKeyId"
    if any(key != keys[0] for key in keys):
        yield f"the queues have different keys: {keys}"
    for name, key in of_type(template, "AWS::KMS::Key"):
        if keys != [{"Fn::GetAtt": [name, "Arn"]}] * len(keys):
            yield f"{name}: is not the key of the queues"
        admitted = [
            statement
            for statement in key["KeyPolicy"]["Statement"]
            if statement["Effect"] == "Allow"
            and statement["Principal"] == EVENTBRIDGE
            and sorted(statement["Action"]) == ["kms:Decrypt", "kms:GenerateDataKey"]
            and all(operator.endswith("IfExists") for operator in statement["Condition"])
        ]
        if len(admitted) != 1:
            yield f"{name}: its policy does not admit EventBridge"
        root = {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
        account = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}
        statements = [{**statement, "Sid": None} for statement in key["KeyPolicy"]["Statement"]]
        if {**account, "Sid": None} not in statements:
            yield f"{name}: its policy does not leave the key to the account"


def alarms_name_what_they_watch(template):
    """Of a queue `!Ref` gives the URL, and an alarm on that never goes off. Of a rule of the default bus it gives the
    name, which has to be the only dimension."""
    queues = [{"Fn::GetAtt": [name, "QueueName"]} for name, _ in of_type(template, QUEUE)]
    rules = [{"Ref": name} for name, _ in of_type(template, RULE)]
    watched = {"AWS/SQS": ("QueueName", queues), "AWS/Events": ("RuleName", rules)}
    for name, alarm in of_type(template, "AWS::CloudWatch::Alarm"):
        (dimension,) = alarm["Dimensions"]
        key, values = watched[alarm["Namespace"]]
        if dimension["Name"] != key or dimension["Value"] not in values:
            yield f"{name}: is on nothing by its name: {dimension}"
        if alarm.get("TreatMissingData") != "notBreaching":
            yield f"{name}: what is idle publishes nothing, and that would alarm"


AGE, WAITING, LOST = (
    "ApproximateAgeOfOldestMessage",
    "ApproximateNumberOfMessagesVisible",
    "InvocationsFailedToBeSentToDlq",
)
LONGEST_JOB = {"Ref": "OldestMessageAlarmSeconds"}
# What each alarm watches, by which figure, above which threshold it goes off, and after how many periods in a row.
# SQS publishes once a minute, so every period is 60 s.
ALARMS = {
    # The age falls as soon as the message is deleted, so the oldest of a minute counts. Five minutes: one that is
    # deleted a moment late is none.
    "OldestMessageAlarm": ("Queue", AGE, "Maximum", LONGEST_JOB, 5),
    # The least of a minute, so that one that is taken within it is none. A sample may fall between arrival and
    # receipt, and the next one into the lease of a worker that died (30 s): the third can be neither.
    "NobodyReceivesAlarm": ("Queue", WAITING, "Minimum", 0, 3),
    # The first one alarms, and at once: it may be a node that has gone.
    "DeadLetterAlarm": ("DeadLetterQueue", WAITING, "Maximum", 0, 1),
    # A count of events, of which the first one is lost already.
    "LifecycleLostAlarm": ("LifecycleRule", LOST, "Sum", 0, 1),
    "SpotLostAlarm": ("SpotRule", LOST, "Sum", 0, 1),
    "RebalanceLostAlarm": ("RebalanceRule", LOST, "Sum", 0, 1),
}


def alarms_go_off_when_they_should(template):
    """By the table above; of what is not in this variant there is no alarm."""
    alarms = dict(of_type(template, "AWS::CloudWatch::Alarm"))
    for name, (watched, metric, statistic, threshold, periods) in ALARMS.items():
        if watched not in template["Resources"]:
            continue
        alarm = alarms.get(name)
        if alarm is None:
            yield f"{name}: is not there"
            continue
        value = alarm["Dimensions"][0]["Value"]
        wanted = {
            "MetricName": metric,
            "Statistic": statistic,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": threshold,
            "Period": 60,
            "EvaluationPeriods": periods,
            "DatapointsToAlarm": periods,
            "ActionsEnabled": True,
        }
        found = {"DatapointsToAlarm": alarm["EvaluationPeriods"], "ActionsEnabled": True, **alarm}
        if value not in ({"Ref": watched}, {"Fn::GetAtt": [watched, "QueueName"]}):
            yield f"{name}: watches {value}, not {watched}"
        for key in wanted:
            if found[key] != wanted[key]:
                yield f"{name}: {key} is {found[key]}, not {wanted[key]}"
    for name in alarms.keys() - ALARMS.keys():
        yield f"{name}: is not in the table of the alarms"


def what_is_lost_alarms(template):
    """For each rule, the events that reach neither the queue nor the dead-letter queue."""
    for rule, _ in of_type(template, RULE):
        alarms = [
            alarm
            for _, alarm in of_type(template, "AWS::CloudWatch::Alarm")
            if alarm["MetricName"] == "InvocationsFailedToBeSentToDlq"
            and alarm["Dimensions"] == [{"Name": "RuleName", "Value": {"Ref": rule}}]
            and (alarm["Statistic"], alarm["Threshold"]) == ("Sum", 0)
        ]
        if len(alarms) != 1:
            yield f"{rule}: no alarm goes off when its events are lost"


def permissions_are_narrow(template):
    """No action with a star, and the resource "*" only where AWS knows no other: cfn-lint's table says where."""
    for name, role in of_type(template, "AWS::IAM::Role"):
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                for action in statement["Action"]:
                    yield from too_wide(f"{name}, {statement['Sid']}", action, statement)


def too_wide(place, action, statement):
    known = resource_kinds(action)
    if known is None:
        yield f"{place}: there is no action {action}"
        return
    arn = statement["Resource"]
    if arn == "*":
        if known:
            yield f'{place}: {action} is allowed on "*", and could be limited to {known}'
        elif not statement.get("Condition"):
            yield f'{place}: {action} is allowed on "*" without any condition'
    elif not known:
        yield f'{place}: {action} knows no resources, so {arn} allows nothing: it takes "*"'


def resource_kinds(action):
    """The kinds of resources that an action can be limited to, by AWS's table that cfn-lint has; None where there
    is no such action."""
    service, operation = action.split(":")
    found = permissions_of_aws().get(service, {}).get("Actions", {}).get(operation.lower())
    return None if found is None else found.get("Resources", [])


def permissions_of_aws():
    table = resources.files("cfnlint") / "data/AdditionalSpecs/Policies.json"
    return json.loads(table.read_text())


def only_the_service_account_takes_the_role(template):
    """By Pod Identity's session tags or by the token's subject."""
    for name, role in of_type(template, "AWS::IAM::Role"):
        trust = role["AssumeRolePolicyDocument"]
        if "Fn::Sub" in trust:
            text, values = trust["Fn::Sub"]
            statements = json.loads(text)["Statement"]
            wanted = {
                "${Issuer}:aud": "sts.amazonaws.com",
                "${Issuer}:sub": "system:serviceaccount:${Namespace}:${ServiceAccount}",
            }
            actions = "sts:AssumeRoleWithWebIdentity"
            if list(values) != ["Issuer"]:
                yield f"{name}: the trust policy needs the issuer"
        else:
            statements = trust["Statement"]
            arn = "arn:${AWS::Partition}:eks:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}"
            wanted = {
                "aws:SourceAccount": {"Ref": "AWS::AccountId"},
                "aws:RequestTag/eks-cluster-arn": {"Fn::Sub": arn},
                "aws:RequestTag/kubernetes-namespace": {"Ref": "Namespace"},
                "aws:RequestTag/kubernetes-service-account": {"Ref": "ServiceAccount"},
            }
            actions = ["sts:AssumeRole", "sts:TagSession"]
        if len(statements) != 1 or statements[0]["Action"] != actions:
            yield f"{name}: the trust policy allows more or less than {actions}"
        elif statements[0].get("Condition") != {"StringEquals": wanted}:
            yield f"{name}: the trust policy does not ask for the service account: {statements[0].get('Condition')}"


def parameters_explain_themselves(template):
    """A description, the words for what does not fit, a label, and a place in the form."""
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    shown = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    for name, parameter in template["Parameters"].items():
        if not parameter.get("Description", "").endswith((".", ")")):
            yield f"{name}: no description"
        if ("AllowedPattern" in parameter) != ("ConstraintDescription" in parameter):
            yield f"{name}: a pattern needs the words for what does not fit it"
        pattern = parameter.get("AllowedPattern")
        defaults = str(parameter.get("Default", "")).split(",") if "Default" in parameter else []
        if pattern and not all(re.fullmatch(pattern, default) for default in defaults):
            yield f"{name}: its own default does not fit"
        if parameter["Type"] == "Number" and not {"MinValue", "MaxValue"} <= parameter.keys():
            yield f"{name}: a number needs its least and its most"
        if shown.count(name) != 1 or name not in interface["ParameterLabels"]:
            yield f"{name}: is not shown once with a label"
    for name in set(shown) | interface["ParameterLabels"].keys():
        if name not in template["Parameters"]:
            yield f"{name}: is shown and does not exist"


RULES = [
    heartbeats_are_in_range,
    hooks_can_be_outlived,
    dead_letter_targets_are_arns,
    only_our_rules_send,
    plain_http_is_denied,
    rules_give_up_in_time,
    rules_are_of_this_account_and_region,
    dead_letters_outlive_messages,
    hand_overs_do_not_use_a_message_up,
    queues_are_encrypted,
    alarms_name_what_they_watch,
    alarms_go_off_when_they_should,
    what_is_lost_alarms,
    permissions_are_narrow,
    only_the_service_account_takes_the_role,
    parameters_explain_themselves,
]
