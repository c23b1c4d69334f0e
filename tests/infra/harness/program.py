"""A child process."""

import re
import subprocess

from harness.waiting import LIMIT, until


class Program:
    """A child with the environment that it is given and nothing of ours. It writes into a log, and is ended by its own
    process id."""

    def __init__(self, words, environment, log, **options):
        self.words, self.environment, self.log, self.options = words, environment, log, options
        log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self):
        """Also once more, after it has ended."""
        with self.log.open("ab") as output:
            self._begin = output.tell()
            options = {"stdout": output, "stderr": output, **self.options}
            self.process = subprocess.Popen(self.words, env=self.environment, stdin=subprocess.DEVNULL, **options)
        try:
            self.begun()
        except BaseException:
            self.end()
            raise

    def begun(self):
        """For those that are of use only after a while: waits for that, and reads what they say until then."""

    def runs(self):
        return self.process.poll() is None

    def said(self):
        """Since it was started, for the last time."""
        return self.log.read_bytes()[self._begin :].decode()

    def waits_for(self, what, ask):
        """Until the answer is something. Once the child has ended, nothing more is to come."""

        def look():
            code = None if self.runs() else self.wait()
            answer = ask()
            assert answer or code is None, f"{self.log.name}: ended with {code} before: {what}\n{self.said()}"
            return answer

        return until(f"{self.log.name}: {what}", look)

    def waits_to_say(self, pattern):
        """The first match in its log."""
        return self.waits_for(f"says {pattern!r}", lambda: re.search(pattern, self.said(), re.MULTILINE))

    def wait(self, limit=LIMIT):
        """Until it has ended, for so many seconds. Gives the exit code."""
        return self.process.wait(limit)

    def end(self):
        self.process.kill()
        self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
