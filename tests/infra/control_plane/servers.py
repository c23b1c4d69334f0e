"""A real Kubernetes on 127.0.0.1: etcd, the API server, its controllers and its scheduler. kwok plays the kubelets."""

import base64
import json
import os
import shutil
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from harness.loopback import free_port
from harness.program import Program

HERE = Path(__file__).resolve().parent
# The password of the one who may do everything. It is only good for this API server, which is gone after the test.
ADMIN = "admin"
# Another one's, who may do everything too, but comes from outside: without the seats of the cluster's own parts.
OUTSIDER = "outsider"
# kwok plays no kubelet for a node with this label, nor for one without any.
DEAD_KUBELET = "kubelet-is-dead"


def program(name):
    found = shutil.which(name)
    assert found, f"{name} is not in PATH: run `make control-plane`, which builds it"
    return found


class Server(Program):
    """One of them, with its data in a folder."""

    def __init__(self, folder, name, **flags):
        words = [program(name), *(f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items())]
        super().__init__(words, {"HOME": str(folder), "TMPDIR": str(folder)}, folder / f"{name}.log")


class Etcd(Server):
    def __init__(self, folder):
        self.url, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        super().__init__(
            folder,
            "etcd",
            data_dir=folder / "etcd",
            listen_client_urls=self.url,
            advertise_client_urls=self.url,
            listen_peer_urls=peers,
            initial_advertise_peer_urls=peers,
            initial_cluster=f"default={peers}",
            unsafe_no_fsync="true",
            log_level="error",
        )


class ApiServer(Server):
    """`audit`: the policy by which it writes down what it is asked, where it is to."""

    def __init__(self, folder, etcd, service_accounts, audit=None):
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        # It makes a certificate of its own here, which is that of its authority, too.
        self.certificate = folder / "certificates" / "apiserver.crt"
        tokens = folder / "tokens.csv"
        tokens.write_text(f"{ADMIN},admin,admin,system:masters\n{OUTSIDER},{OUTSIDER},{OUTSIDER}\n")
        self.audit_log = folder / "audit.log"
        audited = {}
        if audit is not None:
            policy = folder / "audit-policy.yaml"
            policy.write_text(yaml.safe_dump(audit))
            audited = {"audit_policy_file": policy, "audit_log_path": self.audit_log}
        super().__init__(
            folder,
            "kube-apiserver",
            etcd_servers=etcd.url,
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            secure_port=self.port,
            cert_dir=self.certificate.parent,
            service_account_key_file=service_accounts,
            service_account_signing_key_file=service_accounts,
            service_account_issuer="https://kubernetes.default.svc",
            service_cluster_ip_range="10.96.0.0/16",
            token_auth_file=tokens,
            authorization_mode="RBAC",
            # As clusters in use have it, so that only the namespace decides who is refused.
            allow_privileged="true",
            **audited,
        )

    def begun(self):
        self.waits_for("is ready", self.is_ready)

    def is_ready(self):
        if not self.certificate.exists():
            return False
        trusted = ssl.create_default_context(cafile=self.certificate)
        request = Request(f"{self.url}/readyz", headers={"authorization": f"Bearer {ADMIN}"})
        try:
            with urlopen(request, timeout=5, context=trusted) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False


class ControlPlane:
    """All of them, from `with` to its end, or of those beside the API server only the ones that are named."""

    def __init__(self, folder, audit=None, beside=("kube-controller-manager", "kube-scheduler", "kwok")):
        self.folder, self.audit, self.beside = folder, audit, beside

    def __enter__(self):
        with ExitStack() as stack:
            key = self.folder / "service-accounts.key"
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_bytes(
                rsa.generate_private_key(65537, 2048).private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                )
            )
            etcd = stack.enter_context(Etcd(self.folder))
            self.api = stack.enter_context(ApiServer(self.folder, etcd, key, self.audit))
            self.kubeconfig = self.kubeconfig_of("admin", ADMIN)
            shared = {"kubeconfig": self.kubeconfig, "leader_elect": "false", "secure_port": 0}
            keys = {"service_account_private_key_file": key, "root_ca_file": self.api.certificate}
            kubelets = {
                "kubeconfig": self.kubeconfig,
                "manage_nodes_with_label_selector": f"!{DEAD_KUBELET}",
                "node_lease_duration_seconds": 40,
                "server_address": f"127.0.0.1:{free_port()}",
                "config": HERE / "kubelets.yaml",
            }
            self.servers = [
                stack.enter_context(Server(self.folder, name, **flags))
                for name, flags in (
                    ("kube-controller-manager", shared | keys),
                    ("kube-scheduler", shared),
                    ("kwok", kubelets),
                )
                if name in self.beside
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def kubeconfig_of(self, name, token):
        """The file of somebody with this token."""
        authority = base64.b64encode(self.api.certificate.read_bytes()).decode()
        file = self.folder / f"{name}.kubeconfig"
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": name, "cluster": {"server": self.api.url, "certificate-authority-data": authority}}
                    ],
                    "users": [{"name": name, "user": {"token": token}}],
                    "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
                    "current-context": name,
                }
            )
        )
        return file

    def environment(self):
        """Of the one who may do everything."""
        return {"HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig), "PATH": os.environ["PATH"]}

    def run(self, name, *words, given=None):
        """kubectl or helm. Gives what it prints."""
        words = [program(name), *map(str, words)]
        done = subprocess.run(
            words, input=given, env=self.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{name} {' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *words, given=None):
        return self.run("kubectl", *words, given=given)

    def apply(self, documents, *words):
        return self.kubectl("apply", *words, "-f", "-", given=yaml.safe_dump_all(documents))

    def add_nodes(self, nodes):
        """Makes nodes of these (metadata and spec), and waits until they are ready. kwok looks after the pods of a node
        as soon as it has its lease. Each needs a label."""
        for server in self.servers:
            assert server.runs(), server.said()
        self.apply([{"apiVersion": "v1", "kind": "Node", **node} for node in nodes])
        names = [node["metadata"]["name"] for node in nodes]
        leases = [f"lease/{name}" for name in names]
        self.kubectl("wait", *(f"node/{name}" for name in names), "--for=condition=Ready", "--timeout=60s")
        self.kubectl("wait", "-n", "kube-node-lease", *leases, "--for=create", "--timeout=60s")

    def ends_kubelet(self, node):
        """From now on nobody renews its lease, and its pods neither run nor end."""
        self.kubectl("label", "node", node, f"{DEAD_KUBELET}=")

    def audited(self):
        """What its API server has written down, in order. The last line may not be whole yet."""
        log = self.api.audit_log
        return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def get(self, *words):
        """The objects that `kubectl get` names."""
        found = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found.get("items", found)
