"""HTTP on 127.0.0.1: asking, and answering on a thread."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

# Seconds. Far longer than an answer takes.
TIMEOUT = 30


def text_of(url, method="GET"):
    with urlopen(Request(url, method=method), timeout=TIMEOUT) as answer:
        return answer.read().decode()


def json_of(url, method="GET"):
    return json.loads(text_of(url, method))


def status_and_text_of(url):
    """For answers that may be errors."""
    try:
        return 200, text_of(url)
    except HTTPError as error:
        return error.code, error.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(answer):
    """The URL of a server that takes POST. `answer` is asked with path, headers and body, and gives the status, the
    headers and the body of the answer."""

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            given = self.rfile.read(int(self.headers["content-length"]))
            try:
                status, headers, body = answer(self.path, self.headers, given)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                # Whoever asked was ended while it waited for the answer.
                self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
