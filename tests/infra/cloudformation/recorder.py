"""A proxy that writes down every AWS request that comes through it."""

import http.client
import json
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from harness.loopback import serving

SERVICES = {"2011-01-01": "autoscaling", "2015-12-01": "elasticloadbalancing"}


@dataclass
class Request:
    service: str
    operation: str
    parameters: dict
    # Status and body, when it has come.
    answer: tuple = None


@contextmanager
def recording(upstream):
    """The URL of the proxy, and the list of the requests so far."""
    requests = []
    target = urlsplit(upstream)

    def pass_on(path, headers, body):
        request = read(headers, body)
        requests.append(request)
        # Longer than the longest poll.
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
        try:
            connection.request("POST", path, body, end_to_end(headers))
            answer = connection.getresponse()
            request.answer = answer.status, answer.read()
            return answer.status, end_to_end(answer.headers).items(), request.answer[1]
        finally:
            connection.close()

    with serving(pass_on) as address:
        yield address, requests


HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding"}


def end_to_end(headers):
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def read(headers, body):
    service, _, operation = headers.get("x-amz-target", "").partition(".")
    if operation:
        return Request(service.removeprefix("Amazon").lower(), operation, json.loads(body))
    form = dict(parse_qsl(body.decode()))
    return Request(SERVICES[form["Version"]], form["Action"], form)
