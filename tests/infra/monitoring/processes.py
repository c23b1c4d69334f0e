"""Programs on loopback, each ended by its own process id: offramp's demo, sandbox and worker, and Prometheus."""

import json
import os
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import places

# Far longer than anything here takes, also on a busy machine: whoever waits so long has found a defect.
LIMIT = 60


def until(what, ask, limit=LIMIT):
    """Asks until the answer is something, and gives it."""
    deadline = time.monotonic() + limit
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"never came true within {limit} s: {what}"
        time.sleep(0.2)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A process whose output goes to a file, and what it writes into its folder. Its environment is empty but for what
    is given."""

    def __init__(self, folder, name, words, environment=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        self.words = words
        self.variables = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ["PATH"], **(environment or {})}
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.variables
            )

    def crash(self):
        self.process.kill()
        self.process.wait()

    def said(self, pattern):
        """The first match in what it has printed so far."""
        return re.search(pattern, self.log.read_text(), re.MULTILINE)

    def waits_to_say(self, pattern):
        def ask():
            found = self.said(pattern)
            assert found or self.runs(), f"{self.log.name} ended without saying {pattern!r}:\n{self.log.read_text()}"
            return found

        return until(f"{self.log.name} says {pattern!r}", ask)

    def runs(self):
        return self.process.poll() is None

    def end(self):
        if self.runs():
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Demo(Program):
    """`offramp demo`, with its metrics."""

    def __init__(self, folder):
        super().__init__(folder, "demo", [places.offramp(), "demo", "--plain", "--admin-listen", "127.0.0.1:0"])
        self.address = self.waits_to_say(r"serving http://(127\.0\.0\.1:\d+)/metrics")[1]

    def metrics_page(self):
        return get(f"http://{self.address}/metrics")


class Sandbox(Program):
    """`offramp sandbox`: an AWS and a cluster that nobody owns."""

    def __init__(self, folder, nodes):
        super().__init__(folder, "sandbox", [places.offramp(), "sandbox", "--nodes", str(nodes)])
        self.aws = self.waits_to_say(r"^export AWS_ENDPOINT_URL=http://(.+)$")[1]
        kubeconfig = self.waits_to_say(r"^export KUBECONFIG=(.+)$")[1]
        self.target_group = self.waits_to_say(r"^# The target group of the Service `web`: (\S+)$")[1]
        self.kubeconfig = open(kubeconfig, encoding="utf-8").read()
        self.kubernetes = re.search(r"http://([\d.:]+)", self.kubeconfig)[1]

    def control(self, path, post=True):
        request = urllib.request.Request(f"http://{self.aws}/_sandbox/{path}", method="POST" if post else "GET")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def instances(self):
        return sorted(self.control("state", post=False)["instances"])

    def send(self, body):
        """Puts a message into the queue, as anybody with permission could."""
        message = {"QueueUrl": f"http://{self.aws}/111122223333/offramp", "MessageBody": body}
        headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
        request = urllib.request.Request(f"http://{self.aws}/", json.dumps(message).encode(), headers)
        urllib.request.urlopen(request, timeout=30).close()


class Worker(Program):
    """`offramp run` against a sandbox, through gateways in which the world can be made to fail."""

    def __init__(self, folder, sandbox, aws, kubernetes, more=""):
        folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(sandbox.kubeconfig.replace(sandbox.kubernetes, kubernetes))
        config = folder / "offramp.yaml"
        config.write_text(
            f"queue: {{ url: 'http://{aws}/111122223333/offramp' }}\n"
            f"aws: {{ region: eu-west-1, endpoint_url: 'http://{aws}' }}\n"
            f"clusters: [{{ name: blue, kubeconfig: '{kubeconfig}' }}]\n"
            f"target_groups: ['{sandbox.target_group}']\n"
            "admin: { listen: '127.0.0.1:0' }\n"
            "log: { format: json }\n" + more
        )
        keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
        super().__init__(folder, "worker", [places.offramp(), "run", "--config", str(config)], keys)
        self.address = self.waits_to_say(r'"address":"(127\.0\.0\.1:\d+)"')[1]

    def start_again(self):
        """As Kubernetes starts a container again: at the same address."""
        self.variables["OFFRAMP_ADMIN_LISTEN"] = self.address
        self.start()

    def is_ready(self):
        try:
            get(f"http://{self.address}/ready")
        except OSError:
            return False
        return True


class WorkerWithABug(Program):
    """tests/processes/worker_with_a_bug.rs: a worker and a sandbox, and every job panics."""

    def __init__(self, folder):
        super().__init__(folder, "worker", [places.worker_with_a_bug()])
        self.address = self.waits_to_say(r"serving http://(127\.0\.0\.1:\d+)/metrics")[1]

    def interrupt(self):
        """A spot notice for one of its instances."""
        instance = min(json.loads(get(f"http://{self.address}/_sandbox/state"))["instances"])
        request = urllib.request.Request(f"http://{self.address}/_sandbox/spot/{instance}", method="POST")
        urllib.request.urlopen(request, timeout=30).close()


class Prometheus(Program):
    """A Prometheus with the shipped rules that scrapes some workers every second. Each worker is an installation of
    its own: the scrape job."""

    def __init__(self, folder, workers):
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            {
                "job_name": job,
                "honor_labels": True,
                "static_configs": [{"targets": [address], "labels": {"namespace": "ops"}}],
            }
            for job, address in workers.items()
        ]
        rules = [str(places.PROMETHEUS / name) for name in ("rules.yaml", "alerts.yaml")]
        settings = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = folder / "prometheus.json"
        # JSON is YAML.
        config.write_text(json.dumps({"global": settings, "rule_files": rules, "scrape_configs": jobs}))
        # Chosen by us, because Prometheus does not say which port it has taken.
        address = f"127.0.0.1:{free_port()}"
        words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
        super().__init__(folder, "prometheus", [places.program("prometheus"), *words])
        self.address = address
        until(f"Prometheus is ready, see {self.log}", self.is_ready)
        self.began = time.time()

    def is_ready(self):
        assert self.runs(), self.log.read_text()
        try:
            get(f"http://{self.address}/-/ready")
        except OSError:
            return False
        return True

    def ask(self, path, **parameters):
        answer = json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def instant(self, expression):
        return self.ask("query", query=expression)["result"]

    def over(self, expression, begin, end, step=2):
        """The series of an expression over a time, without values that are not numbers."""
        series = self.ask("query_range", query=expression, start=begin, end=end, step=step)["result"]
        for one in series:
            one["values"] = [(at, float(value)) for at, value in one["values"] if value != "NaN"]
        return [one for one in series if one["values"]]
