"""boto3 against the AWS half of the sandbox: python3 boto3_client.py http://127.0.0.1:PORT

Expects a queue that lifecycle events go to, and an Auto Scaling group with at least two members in
service, a terminate hook and one attached target group, as `offramp sandbox` has them. Delays have to be
short: it waits for what it asked for, a minute at most.
"""

import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

passed = 0


def check(condition, what):
    global passed
    assert condition, what
    passed += 1


def refused(call, code, text):
    """The call is refused with this code and a message that begins with this text."""
    try:
        call()
    except ClientError as error:
        found = error.response["Error"]
        check(found["Code"] == code, f"expected the code {code}, got {found}")
        check(found["Message"].startswith(text), f"expected {text!r}, got {found}")
        return error
    raise AssertionError(f"expected {code}, but the call was accepted")


def wait_for(what, look):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = look()
        if found:
            check(True, what)
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited a minute for {what}")


def queue(sqs):
    url = sqs.create_queue(QueueName="boto3", Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
    check(sqs.get_queue_url(QueueName="boto3")["QueueUrl"] == url, "get_queue_url")
    check(url in sqs.list_queues(QueueNamePrefix="bot")["QueueUrls"], "list_queues")

    # botocore itself compares MD5OfMessageBody with what it has sent and received.
    attribute = {"reason": {"DataType": "String", "StringValue": "why not"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="one ü", MessageAttributes=attribute)
    answer = sqs.receive_message(
        QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], VisibilityTimeout=1
    )
    message = answer["Messages"][0]
    check(message["MessageId"] == sent["MessageId"], "the same id in both directions")
    check(message["Body"] == "one ü", "the body comes back")
    check(message["MessageAttributes"] == attribute, "message attributes come back")
    check(message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"], "the digest comes back")
    check(message["Attributes"]["ApproximateReceiveCount"] == "1", "received once")
    check(int(message["Attributes"]["SentTimestamp"]) > 1_600_000_000_000, "milliseconds")
    check("Messages" not in sqs.receive_message(QueueUrl=url), "hidden while in flight")

    again = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10, MessageSystemAttributeNames=["All"])
    check(again["Messages"][0]["MessageId"] == sent["MessageId"], "visible again after the timeout")
    check(again["Messages"][0]["Attributes"]["ApproximateReceiveCount"] == "2", "received twice")
    old, new = message["ReceiptHandle"], again["Messages"][0]["ReceiptHandle"]
    check(old != new, "a new receipt for each delivery")
    refused(
        lambda: sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=old, VisibilityTimeout=5),
        "AWS.SimpleQueueService.MessageNotInflight",
        "",
    )
    refused(
        lambda: sqs.change_message_visibility(QueueUrl=url, ReceiptHandle="nonsense", VisibilityTimeout=5),
        "ReceiptHandleIsInvalid",
        "The input receipt handle",
    )
    time.sleep(0.01)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=new, VisibilityTimeout=43_000)
    check(True, "visibility can be extended")
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=new, VisibilityTimeout=0)
    third = sqs.receive_message(QueueUrl=url)["Messages"][0]
    check(third["MessageId"] == sent["MessageId"], "zero hands it back at once")
    refused(
        lambda: sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=third["ReceiptHandle"], VisibilityTimeout=43_201
        ),
        "InvalidParameterValue",
        "Value 43201 for parameter VisibilityTimeout is invalid.",
    )
    sqs.delete_message(QueueUrl=url, ReceiptHandle=third["ReceiptHandle"])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=third["ReceiptHandle"])
    check(True, "deleting twice is no error")

    entries = [{"Id": str(n), "MessageBody": f"body {n}"} for n in range(5)]
    batch = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    check(len(batch["Successful"]) == 5 and not batch.get("Failed"), "five sent")
    five = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    check([message["Body"] for message in five] == [f"body {n}" for n in range(5)], "five received in order")
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    check(attributes["ApproximateNumberOfMessagesNotVisible"] == "5", "five in flight")
    check(attributes["QueueArn"].endswith(":boto3"), "the queue's ARN")
    entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(five)]
    longer = [dict(entry, VisibilityTimeout=60) for entry in entries[:2]]
    longer.append({"Id": "bad", "ReceiptHandle": "nonsense", "VisibilityTimeout": 60})
    changed = sqs.change_message_visibility_batch(QueueUrl=url, Entries=longer)
    check(len(changed["Successful"]) == 2, "two extended")
    check([failed["Id"] for failed in changed["Failed"]] == ["bad"], "the bad one is reported by itself")
    check(len(sqs.delete_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 5, "five deleted")
    missing = refused(
        lambda: sqs.receive_message(QueueUrl=url + "-none"),
        "AWS.SimpleQueueService.NonExistentQueue",
        "The specified queue does not exist.",
    )
    check(isinstance(missing, sqs.exceptions.QueueDoesNotExist), "a modelled exception")
    refused(
        lambda: sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "a b", "ReceiptHandle": "x"}]),
        "AWS.SimpleQueueService.InvalidBatchEntryId",
        "A batch entry id can only contain",
    )
    sqs.send_message(QueueUrl=url, MessageBody="left over")
    sqs.purge_queue(QueueUrl=url)
    check("Messages" not in sqs.receive_message(QueueUrl=url), "purged")


def hook_path(sqs, autoscaling, elbv2):
    group = next(
        g
        for g in autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        if g["TargetGroupARNs"] and len(g["Instances"]) >= 2
    )
    name, arn = group["AutoScalingGroupName"], group["TargetGroupARNs"][0]
    hook = autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"][0]
    check(hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING", "a terminate hook")
    check(hook["GlobalTimeout"] == min(48 * 3600, 100 * hook["HeartbeatTimeout"]), "its global timeout")
    check(all(i["HealthStatus"] == "Healthy" for i in group["Instances"]), "Healthy in the group")

    victim = group["Instances"][0]["InstanceId"]

    def described():
        answer = autoscaling.describe_auto_scaling_instances(InstanceIds=[victim, "i-0123456789abcdef0"])
        return {i["InstanceId"]: i for i in answer["AutoScalingInstances"]}

    check(list(described()) == [victim], "an id in no group is left out")
    check(described()[victim]["HealthStatus"] == "HEALTHY", "HEALTHY by instance")
    check(described()[victim]["LifecycleState"] == "InService", "in service")

    def health(instance):
        answer = elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return [t["TargetHealth"]["State"] for t in answer if t["Target"]["Id"] == instance]

    tg = elbv2.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"][0]
    check(tg["TargetType"] == "instance", "instance targets")
    attributes = elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
    check("deregistration_delay.timeout_seconds" in [a["Key"] for a in attributes], "the delay is an attribute")
    check(elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["ResourceArn"] == arn, "tags")
    pages = elbv2.get_paginator("describe_target_groups").paginate(PaginationConfig={"PageSize": 1})
    check(arn in [t["TargetGroupArn"] for page in pages for t in page["TargetGroups"]], "pages of target groups")
    pages = autoscaling.get_paginator("describe_auto_scaling_instances").paginate(
        PaginationConfig={"PageSize": 1}
    )
    check(victim in [i["InstanceId"] for p in pages for i in p["AutoScalingInstances"]], "pages of instances")
    pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate(PaginationConfig={"PageSize": 1})
    check(name in [g["AutoScalingGroupName"] for p in pages for g in p["AutoScalingGroups"]], "pages of groups")
    filters = [{"Name": "tag:offramp", "Values": ["on", "yes"]}, {"Name": "tag-key", "Values": ["team"]}]
    tagged = autoscaling.describe_auto_scaling_groups(Filters=filters)["AutoScalingGroups"]
    check(tagged == [], "filters are understood, and no group has these tags")
    check(len(health(victim)) == 1, "one target for one port")

    port = tg["Port"] + 1
    extra = [{"Id": victim, "Port": port}]
    elbv2.register_targets(TargetGroupArn=arn, Targets=extra)
    check(len(health(victim)) == 2, "a second port is a second target")
    elbv2.deregister_targets(TargetGroupArn=arn, Targets=extra)
    check("draining" in health(victim), "draining after its deregistration")
    elbv2.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": victim, "Port": 1}])
    check(True, "deregistering what is not registered is no error")
    absent = elbv2.describe_target_health(TargetGroupArn=arn, Targets=[{"Id": victim, "Port": 1}])
    found = absent["TargetHealthDescriptions"][0]["TargetHealth"]
    check((found["State"], found["Reason"]) == ("unused", "Target.NotRegistered"), "unused when asked for")
    missing = refused(
        lambda: elbv2.describe_target_health(TargetGroupArn=arn + "0"), "TargetGroupNotFound", "One or more"
    )
    check(isinstance(missing, elbv2.exceptions.TargetGroupNotFoundException), "a modelled exception")
    refused(
        lambda: elbv2.register_targets(TargetGroupArn=arn, Targets=[{"Id": "i-0123456789abcdef0"}]),
        "InvalidTarget",
        "The instance ID 'i-0123456789abcdef0' is not valid",
    )

    answer = dict(LifecycleHookName=hook["LifecycleHookName"], AutoScalingGroupName=name)
    refused(
        lambda: autoscaling.record_lifecycle_action_heartbeat(InstanceId=victim, **answer),
        "ValidationError",
        f"No active Lifecycle Action found with instance ID {victim}",
    )
    refused(
        lambda: autoscaling.detach_instances(
            InstanceIds=["i-0123456789abcdef0"], AutoScalingGroupName=name, ShouldDecrementDesiredCapacity=False
        ),
        "ValidationError",
        f"The instance i-0123456789abcdef0 is not part of Auto Scaling group {name}.",
    )
    activity = autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=victim, ShouldDecrementDesiredCapacity=True
    )["Activity"]
    check(activity["AutoScalingGroupName"] == name, "an activity of the group")
    check(described()[victim]["LifecycleState"] == "Terminating", "deregistered first")
    check(set(health(victim)) == {"draining"}, "its targets drain")
    refused(
        lambda: autoscaling.detach_instances(
            InstanceIds=[victim], AutoScalingGroupName=name, ShouldDecrementDesiredCapacity=False
        ),
        "ValidationError",
        f"The instance {victim} is not in InService or Standby.",
    )

    def event():
        url = next(u for u in sqs.list_queues()["QueueUrls"] if u.endswith("/offramp"))
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", []):
            body = json.loads(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if body["detail"].get("EC2InstanceId") == victim:
                return body
        return None

    body = wait_for("the lifecycle event", event)
    check(body["detail-type"] == "EC2 Instance-terminate Lifecycle Action", "its detail-type")
    check(described()[victim]["LifecycleState"] == "Terminating:Wait", "held by the hook")
    activities = autoscaling.get_paginator("describe_scaling_activities").paginate(
        AutoScalingGroupName=name, PaginationConfig={"PageSize": 1}
    )
    mine = [a for p in activities for a in p["Activities"] if a["ActivityId"] == activity["ActivityId"]]
    check([a["Description"] for a in mine] == [f"Terminating EC2 instance: {victim}"], "its activity")
    check(mine[0]["StatusCode"] == "MidTerminatingLifecycleAction", "which waits for the hook")
    check(mine[0]["StartTime"] == activity["StartTime"], "since it was asked for")
    check(health(victim) == [], "the targets are gone before the hook")
    token = body["detail"]["LifecycleActionToken"]
    autoscaling.record_lifecycle_action_heartbeat(LifecycleActionToken=token, **answer)
    check(True, "a heartbeat by token")
    wrong = "0" * 36
    refused(
        lambda: autoscaling.complete_lifecycle_action(
            LifecycleActionToken=wrong, LifecycleActionResult="CONTINUE", **answer
        ),
        "ValidationError",
        f"No active Lifecycle Action found with token {wrong}",
    )
    autoscaling.complete_lifecycle_action(LifecycleActionToken=token, LifecycleActionResult="CONTINUE", **answer)
    refused(
        lambda: autoscaling.complete_lifecycle_action(
            InstanceId=victim, LifecycleActionResult="CONTINUE", **answer
        ),
        "ValidationError",
        f"No active Lifecycle Action found with instance ID {victim}",
    )
    wait_for("the end of the instance", lambda: victim not in described())
    refused(
        lambda: autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=victim, ShouldDecrementDesiredCapacity=False
        ),
        "ValidationError",
        "Instance Id not found",
    )

    def capacity():
        groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return groups["AutoScalingGroups"][0]["DesiredCapacity"]

    before = capacity()
    autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=before + 1)
    check(capacity() == before + 1, "desired capacity was set")
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, DesiredCapacity=before)
    check(capacity() == before, "desired capacity was updated")
    refused(
        lambda: autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=10_000),
        "ValidationError",
        "New SetDesiredCapacity value 10000 is above max value",
    )
    refused(lambda: autoscaling.describe_policies(), "NotImplemented", "the sandbox does not know DescribePolicies")


def main():
    def client(service):
        return boto3.client(
            service,
            endpoint_url=sys.argv[1],
            region_name="eu-west-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    sqs = client("sqs")
    queue(sqs)
    hook_path(sqs, client("autoscaling"), client("elbv2"))
    print(f"{passed} checks passed")


main()
