"""The stage of the walk: emulators of AWS and of two clusters, and what stands in for what they lack.

| the page speaks to | on the walk |
|---|---|
| CloudFormation, SQS, EventBridge, IAM, EKS, STS | ministack |
| Auto Scaling, Elastic Load Balancing, nodes, pods, Events | `offramp sandbox`, one for each cluster |
| Deployments, ConfigMaps, Secrets and the like | this file: it keeps what is applied, and runs the Deployment's container as a process |
| helm, `kubectl apply -k` | the real ones, as `helm template` and `kubectl kustomize`, and the same |
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from cloudformation.servers import Emulator, bridge, client
from harness.loopback import free_port, serving, text_of
from harness.offramp import ACCOUNT, KEYS, REGION, Sandbox, Worker, binary

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = ROOT / ".cache" / "bin"
CLUSTER, GROUP = "blue", "workers"
REMOTE, REMOTE_GROUP = "green", "green-workers"
NODE_ROLE = "nodes"
STACK = "offramp"
TOKEN = "a-token"
TOKEN_SECRET = "kubernetes.io/service-account-token"
# Where the chart mounts what a pod reads.
MOUNTS = "/etc/offramp"


class Refused(Exception):
    """What a command is told when it asks for something that is not there."""


class Stage:
    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "checkout"
        self._stack = contextlib.ExitStack()
        self._bridge = None
        self._lock = threading.Lock()
        # By context, kind and name.
        self.objects = {}
        # By its name, the objects of each release of helm.
        self.releases = {}
        self.worker = None
        self._rollouts = 0

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            (self.folder / "home").mkdir()
            # The page writes files beside it. Everything else of the checkout is the checkout's.
            self.work.mkdir()
            for name in ("infra", "docs"):
                (self.work / name).symlink_to(ROOT / name)
            self.aws = stack.enter_context(Emulator(self.folder / "ministack"))
            self.here = stack.enter_context(Sandbox(self.folder / "blue", nodes=4))
            self.there = stack.enter_context(Sandbox(self.folder / "green", nodes=2))
            self._prepare()
            self._serve(stack)
            stack.callback(lambda: self.worker and self.worker.end())
            stack.callback(self._cross, False)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _prepare(self):
        """What somebody has who begins to read: an account with two clusters, their groups, and a role of nodes."""
        autoscaling = self.aws.client("autoscaling")
        for group in (GROUP, REMOTE_GROUP):
            autoscaling.create_auto_scaling_group(
                AutoScalingGroupName=group,
                LaunchConfigurationName="nodes",
                MinSize=0,
                MaxSize=10,
                AvailabilityZones=[f"{REGION}a"],
            )
        trust = {"Version": "2012-10-17", "Statement": []}
        self.aws.client("iam").create_role(RoleName=NODE_ROLE, AssumeRolePolicyDocument=json.dumps(trust))
        self.aws.client("eks").create_cluster(
            name=CLUSTER, roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks", resourcesVpcConfig={"subnetIds": ["a", "b"]}
        )
        self.hooks_as_deployed()
        both = yaml.safe_load(self.here.kubeconfig.read_text())
        both["clusters"].append({"name": REMOTE, "cluster": {"server": self.there.kubernetes}})
        both["contexts"].append({"name": REMOTE, "context": {"cluster": REMOTE, "user": both["users"][0]["name"]}})
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(both))

    # --- AWS

    def hooks_as_deployed(self):
        """The sandbox's group has the hooks that the emulator's group of that name has."""
        world, name = client("autoscaling", self.here.aws), {"AutoScalingGroupName": GROUP}
        deployed = self.aws.client("autoscaling").describe_lifecycle_hooks(**name)["LifecycleHooks"]
        there = world.describe_lifecycle_hooks(**name)["LifecycleHooks"]
        for hook in deployed:
            world.put_lifecycle_hook(**hook)
        for gone in {hook["LifecycleHookName"] for hook in there} - {hook["LifecycleHookName"] for hook in deployed}:
            world.delete_lifecycle_hook(LifecycleHookName=gone, **name)

    def after_a_command(self):
        """What AWS does by itself: hooks and rules work from the moment on that they are deployed."""
        self.hooks_as_deployed()
        self._cross(STACK in self.stacks())

    def stacks(self):
        found = self.aws.stacks.describe_stacks()["Stacks"]
        return {stack["StackName"] for stack in found if not stack["StackStatus"].startswith("DELETE")}

    def _cross(self, there):
        if there and self._bridge is None:
            url = self.aws.physical(STACK)["Queue"]
            self._bridge = contextlib.ExitStack()
            self._bridge.enter_context(bridge(self.aws, STACK, self.here, url))
        elif not there and self._bridge is not None:
            crossing, self._bridge = self._bridge, None
            crossing.close()

    # --- The programs that are stood in for

    def _serve(self, stack):
        def door(path, headers, body):
            return 200, [], json.dumps(self.answer(json.loads(body))).encode()

        self.address = stack.enter_context(serving(door))
        missing = () if shutil.which("curl") else ("curl",)
        for folder, programs in (("bin", ("kubectl", "helm", *missing)), ("bin-aws", ("aws", "docker"))):
            for program in programs:
                file = self.folder / folder / program
                file.parent.mkdir(exist_ok=True)
                file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "stand_in.py"}" "$0" "$@"\n')
                file.chmod(0o755)

    def answer(self, asked):
        answer = {
            "kubectl": self._kubectl,
            "helm": self._helm,
            "curl": self._curl,
            "aws": self._spelling,
            "docker": lambda *_: "",
        }
        try:
            with self._lock:
                told = answer[asked["program"]](asked["arguments"], asked["input"])
        except (Refused, AssertionError) as error:
            return {"code": 1, "output": f"{error}\n"}
        return {"run": told} if isinstance(told, list) else {"code": 0, "output": told}

    def _spelling(self, arguments, _):
        """Commands that only AWS can answer. The real CLI refuses what it does not know before it connects."""
        environment = self.environment() | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_MAX_ATTEMPTS": "1",
        }
        environment = {name: value for name, value in environment.items() if not name.startswith("AWS_ENDPOINT_URL_")}
        ran = subprocess.run([aws_cli(), *arguments], env=environment, cwd=self.work, capture_output=True, text=True)
        if "Could not connect to the endpoint URL" not in ran.stderr:
            raise Refused(ran.stderr)
        return "EXAMPLE\n"

    def _curl(self, arguments, _):
        """For a machine that has none. The page asks for pages of the worker and nothing else."""
        return text_of(f"http://{arguments[-1].removeprefix('http://')}")

    def _helm(self, arguments, _):
        verb, *rest = arguments
        installs = "--install" in rest
        name, *rest = [word for word in rest if word not in ("--install", "--create-namespace")]
        if verb == "uninstall":
            self._end_worker()
            self._prune(self.releases.pop(name), set())
            return f'release "{name}" uninstalled\n'
        if verb != "upgrade":
            raise Refused(f"no stand-in for helm {verb}")
        if not installs and name not in self.releases:
            raise Refused(f'"{name}" has no deployed releases')
        manifests = self._said_by([TOOLS / "helm", "template", name, *rest])
        before, self.releases[name] = self.releases.get(name, set()), self._keys(CLUSTER, manifests)
        said = self._apply(CLUSTER, manifests)
        self._prune(before, self.releases[name])
        return said

    def _prune(self, before, now):
        """As helm does it: what the release no longer has is deleted, but for what says that it is to be kept."""
        for key in before - now:
            if self.objects[key]["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep":
                del self.objects[key]

    def _kubectl(self, arguments, given):
        real = [str(TOOLS / "kubectl"), *arguments]
        words, context, namespace = [], CLUSTER, None
        rest = iter(arguments)
        for word in rest:
            if word == "--context":
                context = next(rest)
            elif word in ("-n", "--namespace"):
                namespace = next(rest)
            else:
                words.append(word)
        verb, *rest = words
        # What the sandbox has.
        if namespace is None and verb in ("get", "describe", "wait", "config"):
            return real
        if verb == "apply":
            return self._apply(context, self._read(rest, given))
        if verb == "delete" and rest[0] in ("-f", "-k"):
            return self._delete(context, self._read(rest, given))
        if (verb, *rest[:1]) == ("delete", "namespace"):
            return f'namespace "{rest[1]}" deleted\n'
        if (verb, *rest[:1]) == ("delete", "configmap"):
            self._object(context, "configmap", rest[1])
            del self.objects[context, "configmap", rest[1]]
            return f'configmap "{rest[1]}" deleted\n'
        if verb == "create" and "--dry-run=client" in rest:
            return real
        if verb == "create":
            return self._create(context, self._said_by([*real, "--dry-run=client", "-o", "yaml"]))
        if verb == "label":
            self._object(context, rest[0], rest[1])
            return f"{rest[0]}/{rest[1]} labeled\n"
        if (verb, *rest[:1]) == ("wait", "secret/offramp-token"):
            return self._wait_for_token(context, rest)
        if (verb, *rest[:1]) == ("get", "secret"):
            secret = self._object(context, "secret", rest[1])
            assert secret["type"] == TOKEN_SECRET, secret
            # As in a cluster: what is not there is printed as nothing.
            return secret.get("data", {}).get("ca.crt" if "ca" in rest[-1] else "token", "")
        if verb == "get" and rest == ["pods"]:
            return f"NAME      READY   STATUS    RESTARTS   AGE\nofframp   {int(self._deployed().is_ready())}/1     Running   0          1m\n"
        if verb == "logs":
            return self._deployed().said()
        if verb == "port-forward":
            return f"Forwarding from {self._deployed().admin()} -> 9090\n"
        if (verb, *rest[:1]) == ("rollout", "status"):
            self._deployed().waits_until_ready()
            return "successfully rolled out\n"
        raise Refused(f"no stand-in for kubectl {' '.join(arguments)}")

    def _said_by(self, command):
        ran = subprocess.run(command, cwd=self.work, env=self.environment(), capture_output=True, text=True)
        if ran.returncode != 0:
            raise Refused(ran.stderr)
        return ran.stdout

    # --- What stands in for the API server of the cluster that offramp runs in

    def _read(self, arguments, given):
        if arguments[0] == "-k":
            return self._said_by([TOOLS / "kubectl", "kustomize", arguments[1]])
        file = arguments[arguments.index("-f") + 1]
        return given if file == "-" else (self.work / file).read_text()

    def _keys(self, context, text):
        documents = filter(None, yaml.safe_load_all(text))
        return {(context, found["kind"].lower(), found["metadata"]["name"]) for found in documents}

    def _apply(self, context, text):
        said, before = [], self.objects.get((context, "deployment", STACK))
        for found in filter(None, yaml.safe_load_all(text)):
            kind, name = found["kind"].lower(), found["metadata"]["name"]
            assert found["apiVersion"], found
            if kind == "prometheusrule":
                assert all(group["rules"] for group in found["spec"]["groups"]), name
            if found.get("type") == TOKEN_SECRET:
                # What a controller has put there stays.
                found |= {"data": self.objects.get((context, kind, name), {}).get("data", {})}
            self.objects[context, kind, name] = found
            said.append(f"{kind}/{name} applied\n")
        after = self.objects.get((context, "deployment", STACK))
        # Whatever else changes, the pods stay.
        if after and (before is None or before["spec"]["template"] != after["spec"]["template"]):
            self._roll_out()
        return "".join(said)

    def _create(self, context, text):
        for there in self._keys(context, text) & set(self.objects):
            raise Refused(f'Error from server (AlreadyExists): {there[1]}s "{there[2]}" already exists')
        return self._apply(context, text)

    def _wait_for_token(self, context, words):
        """The token controller of the walk is slow: whoever does not wait finds a Secret without a token."""
        secret = self._object(context, "secret", "offramp-token")
        assert "--for=jsonpath={.data.token}" in words, words
        secret["data"] = {key: base64.b64encode(text.encode()).decode() for key, text in self._credentials().items()}
        return "secret/offramp-token condition met\n"

    def _delete(self, context, text):
        said = []
        for found in filter(None, yaml.safe_load_all(text)):
            kind, name = found["kind"].lower(), found["metadata"]["name"]
            self._object(context, kind, name)
            del self.objects[context, kind, name]
            if kind == "deployment":
                self._end_worker()
            said.append(f"{kind}/{name} deleted\n")
        return "".join(said)

    def _object(self, context, kind, name):
        if (context, kind, name) not in self.objects:
            raise Refused(f'{kind}s "{name}" not found')
        return self.objects[context, kind, name]

    def _credentials(self):
        """A token, and any certificate that can be read: the sandbox's API server has none and asks for nothing."""
        import botocore

        bundle = (Path(botocore.__file__).parent / "cacert.pem").read_text()
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return {"token": TOKEN, "ca.crt": bundle[bundle.index(begin) : bundle.index(end) + len(end)] + "\n"}

    def _roll_out(self):
        """The container of the Deployment as a process, with what its pod would mount."""
        deployment = self._object(CLUSTER, "deployment", STACK)
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].startswith(f"{ACCOUNT}.dkr.ecr.{REGION}."), container["image"]
        account = self._object(CLUSTER, "serviceaccount", pod["serviceAccountName"])
        role = account["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        outputs = self.aws.stacks.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
        assert role in (None, *(output["OutputValue"] for output in outputs)), role

        self._rollouts += 1
        mounts = self.folder / "worker" / str(self._rollouts)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        # The probes come in there, wherever the worker of the walk listens.
        admin = yaml.safe_load(self._files(volumes["config"])["offramp.yaml"]).get("admin")
        assert admin == {"listen": f"0.0.0.0:{container['ports'][0]['containerPort']}"}, admin
        for mount in container["volumeMounts"]:
            folder = mounts / Path(mount["mountPath"]).relative_to(MOUNTS)
            folder.mkdir(parents=True)
            for name, content in self._files(volumes[mount["name"]]).items():
                # The sandbox's API server would let any token in.
                assert name != "token" or content == TOKEN, f"{mount['mountPath']}/{name}: {content!r} is no token"
                # The kubeconfigs are elsewhere.
                (folder / name).write_text(content.replace(f"{MOUNTS}/", f"{mounts}/"))
        words = [word.replace(MOUNTS, str(mounts)) for word in container["args"]]
        self._end_worker()
        log = self.folder / f"worker-{self._rollouts}.log"
        self.worker = Worker([binary(), *words], self._worker_environment(), log)

    def _files(self, volume):
        if "configMap" in volume:
            return self._object(CLUSTER, "configmap", volume["configMap"]["name"])["data"]
        secret = self._object(CLUSTER, "secret", volume["secret"]["secretName"])
        return {name: base64.b64decode(content).decode() for name, content in secret["data"].items()}

    def _worker_environment(self):
        return {
            "HOME": str(self.folder / "home"),
            # What the service account and its role are to a pod.
            "KUBECONFIG": str(self.here.kubeconfig),
            **KEYS,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.here.aws,
            "AWS_ENDPOINT_URL_SQS": self.aws.endpoint,
            # Goes before the chart's 0.0.0.0:9090.
            "OFFRAMP_ADMIN_LISTEN": "127.0.0.1:0",
        }

    def _end_worker(self):
        if self.worker is not None:
            # As in a cluster, where a pod is ready before the one before it is ended.
            self.worker.admin()
            self.worker.stop(limit=30)
            self.worker = None

    def admin(self):
        return self.worker and self.worker.admin()

    def _deployed(self):
        assert self.worker is not None, "no worker is deployed"
        return self.worker

    # --- The shell of the reader

    def environment(self):
        return {
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]),
            "HOME": str(self.folder / "home"),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "WALK_STAGE": self.address,
            **KEYS,
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "AWS_ENDPOINT_URL_AUTO_SCALING": self.here.aws,
            "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2": self.here.aws,
        }


def aws_cli():
    return shutil.which("aws", path=os.path.dirname(sys.executable))
