"""The role of the deployed stack against the calls of the worker: exactly those, on exactly these resources.

The measure is the course (course.py). A call that the code can make and the course does not provoke fails the
first test here, so that the course has to be extended and not the list.
"""

import re

import pytest
import rules
from harness.offramp import ACCOUNT, REGION
from templates import CENTRAL, ROOT, VARIANTS, chosen, load

CODE = ROOT / "crates/aws/src"

def in_the_code():
    """Every operation that the ports on AWS call, as AWS names it: `client.describe_target_health()`."""
    found = set()
    for file in sorted(CODE.glob("*.rs")):
        text = file.read_text().split("#[cfg(test)]")[0]
        found |= {
            "".join(word.title() for word in call.split("_"))
            for call in re.findall(r"\bclient\s*\.(\w+)\(\)", text)
        }
    return found


def test_the_course_makes_every_call_that_the_code_can_make(course):
    calls = in_the_code()
    assert len(calls) >= 16
    made = {request.operation for request in course.to_queues + course.to_sandbox}
    assert made == calls


def test_the_sandbox_counted_the_same(course):
    """What the sandbox logged are the calls that came through the proxy, and those that the test made itself."""
    logged = {
        name: count
        for name, count in course.counted.items()
        if name.startswith(("autoscaling.", "elasticload"))
    }
    seen = {}
    for request in course.to_sandbox:
        name = f"{request.service}.{request.operation}"
        seen[name] = seen.get(name, 0) + 1
    for operation, count in course.own.items():
        name = f"autoscaling.{operation}"
        seen[name] = seen.get(name, 0) + count
    assert logged == seen


def needed(course):
    """Action and resource of every request of the worker, as IAM sees them."""
    pairs = set()
    for request in course.to_queues + course.to_sandbox:
        # A batch needs the permission of the single call.
        action = f"{request.service}:{request.operation.removesuffix('Batch')}"
        pairs.add((action, resource(request, course)))
    return pairs


def resource(request, course):
    parameters = request.parameters
    if request.service == "sqs":
        queue = parameters.get("QueueName") or parameters["QueueUrl"].rsplit("/", 1)[1]
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
    if request.operation.startswith("Describe"):
        return "*"
    if request.service == "elasticloadbalancing":
        return parameters["TargetGroupArn"]
    # There is one group; TerminateInstanceInAutoScalingGroup names the instance only.
    assert parameters.get("AutoScalingGroupName", "workers") == "workers"
    return course.group_arn


def decision(emulator, course, action, arn):
    simulate = emulator.client("iam").simulate_principal_policy
    answer = simulate(PolicySourceArn=course.outputs["RoleArn"], ActionNames=[action], ResourceArns=[arn])
    return answer["EvaluationResults"][0]["EvalDecision"]


def test_the_role_allows_every_call(emulator, course):
    denied = {pair for pair in needed(course) if decision(emulator, course, *pair) != "allowed"}
    assert denied == set()


def test_the_role_allows_no_call_that_was_not_made(emulator, course):
    """Each action of each statement was used on a resource of that statement."""
    pairs = needed(course)
    role = course.outputs["RoleArn"].rsplit("/", 1)[1]
    for statement in emulator.policy(role)["Statement"]:
        assert statement["Effect"] == "Allow"
        pattern = re.escape(statement["Resource"]).replace(r"\*", ".*")
        for action in statement["Action"]:
            used = [arn for made, arn in pairs if made == action and re.fullmatch(pattern, arn)]
            assert used, f"{statement['Sid']} allows {action}, which nobody needs on {statement['Resource']}"


def test_the_role_allows_nothing_on_the_resources_of_others(emulator, course):
    others = {
        "sqs": f"arn:aws:sqs:{REGION}:{ACCOUNT}:payments",
        "autoscaling": course.group_arn.replace("/workers", "/payments"),
        "elasticloadbalancing": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/green-web/0123",
    }
    for action, arn in needed(course):
        if arn != "*":
            other = others[action.split(":")[0]]
            assert decision(emulator, course, action, other) == "implicitDeny", (action, other)
    # Nor may it take from the dead-letter queue.
    letters = course.outputs["DeadLetterQueueArn"]
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage"):
        assert decision(emulator, course, action, letters) == "implicitDeny", action


# "*" is all that AWS knows for these: they read, and know no resources. The condition limits them to the Region.
WITHOUT_RESOURCES = {
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "autoscaling:DescribeLifecycleHooks",
    "autoscaling:DescribeScalingActivities",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
}


def test_the_star_is_only_where_aws_knows_no_resource(emulator, course):
    role = course.outputs["RoleArn"].rsplit("/", 1)[1]
    starred = [statement for statement in emulator.policy(role)["Statement"] if statement["Resource"] == "*"]
    assert {action for statement in starred for action in statement["Action"]} == WITHOUT_RESOURCES
    for statement in starred:
        assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": REGION}}
    assert all(rules.resource_kinds(action) == [] for action in WITHOUT_RESOURCES)


@pytest.mark.parametrize("variant", ["irsa", "own-key"])
def test_a_key_brings_only_what_sqs_needs_for_the_worker(variant):
    """SQS makes these calls on behalf of the worker, so no course of ours can see them. A consumer needs Decrypt,
    a producer GenerateDataKey and Decrypt (SQS developer guide, key management)."""
    role = chosen(load(CENTRAL), VARIANTS[variant])["Resources"]["WorkerRole"]["Properties"]
    with_key = {s["Sid"]: s for s in role["Policies"][0]["PolicyDocument"]["Statement"]}
    role = chosen(load(CENTRAL), VARIANTS["pod-identity"])["Resources"]["WorkerRole"]["Properties"]
    without = {s["Sid"] for s in role["Policies"][0]["PolicyDocument"]["Statement"]}
    assert with_key.keys() - without == {"Unlock"}
    assert with_key["Unlock"]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert list(with_key["Unlock"]["Condition"]["StringEquals"]) == ["kms:ViaService"]
