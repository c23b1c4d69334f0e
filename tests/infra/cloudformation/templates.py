"""The templates as data, and what they become with one set of parameters."""

import copy
from pathlib import Path

from cfnlint.decode import cfn_yaml

ROOT = Path(__file__).resolve().parents[3]
CENTRAL = ROOT / "infra/cloudformation/central.yaml"
HOOKS = ROOT / "infra/cloudformation/hooks.yaml"
OIDC_PROVIDER = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"

# Between them every condition of central.yaml is once true and once false.
VARIANTS = {
    "pod-identity": {"ClusterName": "blue", "AutoScalingGroupPattern": "blue-*"},
    "irsa": {
        "ClusterName": "blue",
        "AutoScalingGroupPattern": "*",
        "OidcProviderArn": OIDC_PROVIDER,
        "EncryptionKey": "new",
        "RebalanceRecommendations": "disabled",
        "AutoScalingGroupScope": "tagged",
        "AlarmTopicArn": "arn:aws:sns:eu-west-1:111122223333:on-call",
    },
    "own-key": {
        "ClusterName": "blue",
        "AutoScalingGroupPattern": "blue-*",
        "EncryptionKey": "arn:aws:kms:eu-west-1:111122223333:key/0f1e2d3c-4b5a-4678-8901-23456789abcd",
    },
}


def load(path):
    """A template as plain dictionaries; `!Ref X` is {"Ref": "X"}."""
    return plain(cfn_yaml.load(str(path)))


def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def chosen(template, parameters):
    """The template with every condition decided: no Conditions, no Fn::If, no AWS::NoValue."""
    template = copy.deepcopy(template)
    values = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()}
    values.update(parameters)
    truths = {name: holds(condition, values) for name, condition in template.get("Conditions", {}).items()}
    decided = {}
    for section, content in template.items():
        if section in ("Resources", "Outputs"):
            decided[section] = {}
            for name, item in content.items():
                # A loop is a list, and has no condition.
                condition = item.pop("Condition", None) if isinstance(item, dict) else None
                if truths.get(condition, True):
                    decided[section][name] = decide(item, truths)
        elif section != "Conditions":
            decided[section] = content
    return decided


def holds(condition, values):
    ((function, arguments),) = condition.items()
    if function == "Fn::Not":
        return not holds(arguments[0], values)
    assert function == "Fn::Equals", f"{function} in a condition: teach it to `holds`"
    left, right = (values[side["Ref"]] if isinstance(side, dict) else side for side in arguments)
    return left == right


NOTHING = {"Ref": "AWS::NoValue"}


def decide(value, truths):
    if isinstance(value, dict):
        if list(value) == ["Fn::If"]:
            name, then, otherwise = value["Fn::If"]
            return decide(then if truths[name] else otherwise, truths)
        items = {key: decide(item, truths) for key, item in value.items()}
        return {key: item for key, item in items.items() if item != NOTHING}
    if isinstance(value, list):
        return [item for item in (decide(item, truths) for item in value) if item != NOTHING]
    return value


def of_type(template, kind):
    """Name and properties of every resource of a type. Of a loop, the resource that it repeats."""
    for name, resource in template["Resources"].items():
        if name.startswith("Fn::ForEach"):
            yield from of_type({"Resources": resource[2]}, kind)
        elif resource["Type"] == kind:
            yield name, resource.get("Properties", {})
