"""A gateway on loopback in front of a sandbox, in which requests can be made to fail."""

import asyncio
import threading


class Gateway:
    """Passes each request on over a connection of its own, unless `fault` says otherwise. `fault` is asked with the
    method, the path and the body, and says None (pass it on), CUT (hang up), STALL (never answer), or an answer and how
    many seconds it takes."""

    CUT, STALL = object(), object()

    def __init__(self, upstream, fault=lambda method, path, body: None):
        self.fault = fault
        self.host, port = upstream.split(":")
        self.port = int(port)
        self.passing = set()
        started = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._listen(started)), daemon=True)
        self.thread.start()
        started.wait()

    async def _listen(self, started):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "127.0.0.1:{}".format(server.sockets[0].getsockname()[1])
        started.set()
        await self.ended.wait()
        # What is under way is cancelled with the loop.
        server.close()

    def end(self):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join()

    def cut(self):
        """Hangs up on every connection, and on all that come."""

        def hang_up():
            self.fault = lambda method, path, body: self.CUT
            for writer in self.passing:
                writer.transport.abort()

        self.loop.call_soon_threadsafe(hang_up)

    async def _serve(self, reader, writer):
        self.passing.add(writer)
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Either side may hang up at any time, and so do we in the end.
            pass
        finally:
            self.passing.discard(writer)
            writer.close()

    async def _one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *headers = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request.split(" ", 2)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        fault = self.fault(method, path, body)
        if fault is self.STALL:
            # Until the other side gives up.
            await reader.read()
            return
        if fault is self.CUT:
            writer.transport.abort()
            return
        if fault is not None:
            answer, takes = fault
            await asyncio.sleep(takes)
            writer.write(answer)
            await writer.drain()
            return
        kept = [line for line in headers if not line.lower().startswith("connection:")]
        upstream, sender = await asyncio.open_connection(self.host, self.port)
        self.passing.add(sender)
        try:
            sender.write("\r\n".join([request, *kept, "Connection: close", "", ""]).encode("latin-1") + body)
            while part := await upstream.read(65536):
                writer.write(part)
                await writer.drain()
        finally:
            self.passing.discard(sender)
            sender.close()


def access_denied(operation):
    """How the query APIs of AWS refuse a call."""
    return answer(
        "403 Forbidden",
        "text/xml",
        "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
        f"<Message>User is not authorized to perform: {operation}</Message></Error>"
        "<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>",
    )


def no_messages():
    """How SQS answers a long poll to which nothing comes."""
    return answer("200 OK", "application/x-amz-json-1.0", "{}")


def answer(status, kind, text):
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return (head + text).encode()
