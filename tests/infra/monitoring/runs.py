"""Two runs at the same time, each watched by a Prometheus of its own: the ordinary demo, in which nothing is lost,
and a world in which everything that can be lost is."""

import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

from harness.offramp import Sandbox
from harness.waiting import until

import places
from gateway import Gateway, access_denied, no_messages
from processes import Demo, Prometheus, Worker, WorkerWithABug

# The longest `for` of the alerts that the bad world has to earn is two minutes, the demo takes a little more.
LONGEST = 400


Installation = namedtuple("Installation", "sandbox worker aws kubernetes")


class Watched:
    """What a Prometheus saw of a run, from beginning to end."""

    def __init__(self, prometheus, begin, end):
        self.prometheus, self.begin, self.end = prometheus, begin, end

    def series(self, expression):
        return self.prometheus.over(expression, self.begin, self.end)

    def alerts(self, state):
        """For how many seconds each alert was in a state, by alert and installation."""
        found = {}
        for one in self.prometheus.over(f'ALERTS{{alertstate="{state}"}}', self.begin, self.end, step=1):
            labels = one["metric"]
            key = (labels["alertname"], labels.get("job"))
            found[key] = max(found.get(key, 0), len(one["values"]))
        return found


class Runs:
    """Begins both at once, in the background, so that the tests that need neither go on meanwhile."""

    def __init__(self, folder):
        self.folder = folder
        self.closing = False
        self.stack = ExitStack()
        self.pool = ThreadPoolExecutor(2)
        self.demo_process = self._keep(Demo(folder / "demo"))
        # All metrics of a worker are there from the start.
        self.metrics_page = self.demo_process.metrics_page()
        self._demo = self.pool.submit(self._watch_demo)
        self._bad = self.pool.submit(self._watch_bad_world)

    def _keep(self, program):
        self.stack.callback(program.end)
        assert not self.closing, "the tests are over"
        return program

    def close(self):
        """Ends every program, those too that a run was about to start."""
        self.closing = True
        self.stack.close()
        self.pool.shutdown()
        self.stack.close()

    def demo(self):
        return self._demo.result(LONGEST)

    def bad_world(self):
        return self._bad.result(LONGEST)

    def _watch_demo(self):
        prometheus = self._keep(Prometheus(self.folder / "demo", {"offramp": self.demo_process.address}))
        seen = until("the demo is scraped", lambda: prometheus.instant('up{job="offramp"} == 1'))
        # Before the first scrape the worker is absent, and the rules know so for two more rounds.
        begin = float(seen[0]["value"][0]) + 2
        until("the demo ends", lambda: not self.demo_process.runs(), limit=LONGEST)
        # Its last seconds without metrics are not part of the run.
        end = time.time() - 3
        assert self.demo_process.process.returncode == 0, self.demo_process.said()
        return Watched(prometheus, begin, end)

    def _watch_bad_world(self):
        """Five installations, each with another misfortune.

        `blind`: a node leaves by its hook, then the cluster cannot be seen any more, so that it cannot be drained; the
        load balancers may not be read, the next notice finds no room, one message makes no sense and one asks for
        nothing.
        `stuck`: the API server never answers a cordon, and somebody else is always quicker to look into the queue, or
        so it seems: receives find nothing, and messages wait.
        `deaf`: the queue goes away.
        `fragile`: its worker crashes again and again, and at last it does not come back.
        `buggy`: every job of its worker panics.
        """
        blind = self._installation("blind", 6, "timing: { hook_limit: 3m }\njobs: { most: 1 }\n")
        stuck = self._installation("stuck", 6)
        deaf = self._installation("deaf", 1)
        fragile = self._installation("fragile", 1)
        buggy = self._keep(WorkerWithABug(self.folder / "buggy"))
        shipped = {"blind": blind.worker, "stuck": stuck.worker, "deaf": deaf.worker, "fragile": fragile.worker}
        workers = shipped | {"buggy": buggy}
        addresses = {name: worker.address for name, worker in workers.items()}
        prometheus = self._keep(Prometheus(self.folder / "bad-world", addresses))
        begin = time.time()
        for worker in shipped.values():
            worker.waits_until_ready()
        connected = "offramp_queue_connected == 1"
        until("all are scraped", lambda: len(prometheus.instant(connected)) == len(workers))

        buggy.interrupt()
        deaf.aws.cut()
        self._crash_again_and_again(fragile.worker, prometheus)

        stuck.kubernetes.fault = lambda method, path, body: Gateway.STALL if method == "PATCH" else None
        stuck.sandbox.control("desired/workers?capacity=4")
        isolating = 'sum(offramp_jobs{job="stuck", stage="isolate"}) > 0'
        until("a node is to be isolated", lambda: prometheus.instant(isolating))
        receives = []

        def no_luck(method, path, body):
            if b"MaxNumberOfMessages" in body:
                receives.append(path)
                return no_messages(), 5
            return None

        stuck.aws.fault = no_luck
        # Four wait at the same time. Those that were under way before could still find something.
        until("all receives find nothing", lambda: len(receives) >= 8)
        stuck.sandbox.send("nobody reads this")

        denied = access_denied("elasticloadbalancing:DescribeTargetHealth")
        is_health = b"Action=DescribeTargetHealth"
        blind.aws.fault = lambda method, path, body: (denied, 0) if is_health in body else None
        blind.sandbox.send("no event at all")
        blind.sandbox.send((places.ROOT / "tests/fixtures/events/autoscaling-launch-successful.json").read_text())
        blind.sandbox.control("desired/workers?capacity=4")
        isolated = 'sum(offramp_isolation_seconds_count{job="blind"}) > 0'
        until("a node is isolated", lambda: prometheus.instant(isolated))
        blind.kubernetes.cut()

        until("every alert fires that this world earns", lambda: self._earned(prometheus), limit=300)
        # A second more: questions about the whole run go in steps of a second, and the last one has to see this.
        return Watched(prometheus, begin, time.time() + 1)

    @staticmethod
    def _crash_again_and_again(worker, prometheus):
        start = 'process_start_time_seconds{job="fragile"}'
        for crashes in (1, 2, 3):
            worker.end()
            worker.start_again()
            # A start time has whole seconds, so the next start is in another second.
            seen = f"changes({start}[10m]) == {crashes} and time() - {start} > 2"
            until("the start after a crash is seen", lambda seen=seen: prometheus.instant(seen))
        worker.end()

    def _installation(self, name, nodes, config=""):
        folder = self.folder / name
        sandbox = self._keep(Sandbox(folder, nodes))
        aws, kubernetes = (self._keep(Gateway(urlsplit(url).netloc)) for url in (sandbox.aws, sandbox.kubernetes))
        worker = self._keep(Worker(folder, sandbox, aws.address, kubernetes.address, config))
        return Installation(sandbox, worker, aws, kubernetes)

    @staticmethod
    def _earned(prometheus):
        firing = prometheus.instant('count by (alertname, job) (ALERTS{alertstate="firing"})')
        return EARNED <= {(one["metric"]["alertname"], one["metric"].get("job")) for one in firing}


# Which installation of the bad world makes which alert fire.
EARNED = {
    ("OfframpQueueDisconnected", "deaf"),
    ("OfframpClusterOutOfSync", "blind"),
    ("OfframpPermissionDenied", "blind"),
    ("OfframpIsolationStuck", "stuck"),
    # Nobody can see whether its nodes are isolated.
    ("OfframpIsolationStuck", "blind"),
    ("OfframpMessagesNotReceived", "stuck"),
    ("OfframpMessagesHeldBack", "blind"),
    ("OfframpHookAboutToTimeOut", "blind"),
    ("OfframpDeadLetterQueueGrowing", "blind"),
    ("OfframpMessagesUnreadable", "blind"),
    ("OfframpWorkerRestarting", "fragile"),
    ("OfframpWorkerAbsent", "fragile"),
    ("OfframpJobPanicked", "buggy"),
}
