"""A proxy that writes down every AWS request that comes through it."""

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

SERVICES = {"2011-01-01": "autoscaling", "2015-12-01": "elasticloadbalancing"}


@dataclass(frozen=True)
class Request:
    service: str
    operation: str
    parameters: dict = field(hash=False)


@contextmanager
def recording(upstream):
    """The URL of the proxy, and the list of the requests so far."""
    requests = []
    target = urlsplit(upstream)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.append(read(self.headers, body))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            # Longer than the longest poll.
            connection = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
            try:
                connection.request("POST", self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                # The worker was ended while it waited for an answer.
                self.close_connection = True
            finally:
                connection.close()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding"}


def read(headers, body):
    service, _, operation = headers.get("x-amz-target", "").partition(".")
    if operation:
        return Request(service.removeprefix("Amazon").lower(), operation, json.loads(body))
    form = dict(parse_qsl(body.decode()))
    return Request(SERVICES[form["Version"]], form["Action"], form)
