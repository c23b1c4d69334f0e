"""Programs on loopback, each ended by its own process id: offramp's demo, sandbox and worker, and Prometheus."""

import json
from urllib.parse import urlencode

from harness import offramp
from harness.loopback import free_port, json_of, text_of
from harness.program import Program

import places


class Demo(Program):
    """`offramp demo`, with its metrics."""

    def __init__(self, folder):
        words = [offramp.binary(), "demo", "--plain", "--admin-listen", "127.0.0.1:0"]
        super().__init__(words, {"TMPDIR": str(folder)}, folder / "demo.log")

    def begun(self):
        self.address = self.waits_to_say(r"serving http://(127\.0\.0\.1:\d+)/metrics")[1]

    def metrics_page(self):
        return text_of(f"http://{self.address}/metrics")


class Worker(offramp.Worker):
    """Against a sandbox, through gateways in which the world can be made to fail."""

    def __init__(self, folder, sandbox, aws, kubernetes, more=""):
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(sandbox.kubeconfig.read_text().replace(sandbox.kubernetes, f"http://{kubernetes}"))
        config = folder / "offramp.yaml"
        config.write_text(
            f"queue: {{ url: 'http://{aws}/111122223333/offramp' }}\n"
            f"aws: {{ region: eu-west-1, endpoint_url: 'http://{aws}' }}\n"
            f"clusters: [{{ name: blue, kubeconfig: '{kubeconfig}' }}]\n"
            f"target_groups: ['{sandbox.target_group}']\n"
            "admin: { listen: '127.0.0.1:0' }\n"
            "log: { format: json }\n" + more
        )
        environment = {"HOME": str(folder), **offramp.KEYS}
        super().__init__([offramp.binary(), "run", "--config", str(config)], environment, folder / "worker.log")

    def begun(self):
        self.address = self.admin()

    def start_again(self):
        """As Kubernetes starts a container again: at the same address."""
        self.environment["OFFRAMP_ADMIN_LISTEN"] = self.address
        self.start()


class WorkerWithABug(Program):
    """tests/processes/worker_with_a_bug.rs: a worker and a sandbox, and every job panics."""

    def __init__(self, folder):
        super().__init__([places.worker_with_a_bug()], {"TMPDIR": str(folder)}, folder / "worker.log")

    def begun(self):
        self.address = self.waits_to_say(r"serving http://(127\.0\.0\.1:\d+)/metrics")[1]

    def interrupt(self):
        """A spot notice for one of its instances."""
        instance = min(json_of(f"http://{self.address}/_sandbox/state")["instances"])
        json_of(f"http://{self.address}/_sandbox/spot/{instance}", "POST")


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
        self.address = address
        super().__init__([places.program("prometheus"), *words], {}, folder / "prometheus.log")

    def begun(self):
        self.waits_for("is ready", self.is_ready)

    def is_ready(self):
        try:
            text_of(f"http://{self.address}/-/ready")
        except OSError:
            return False
        return True

    def ask(self, path, **parameters):
        answer = json_of(f"http://{self.address}/api/v1/{path}?{urlencode(parameters)}")
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
