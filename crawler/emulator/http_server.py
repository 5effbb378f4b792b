"""HTTP/1.1 on loopback: requests are read, and answered as a function says.

Rule: nothing here knows what is asked. Who hangs up waits no longer: his call is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import h11

from crawler.emulator.settings import HOST

_MOST_BYTES = 32 * 2**20
_READ_BYTES = 2**16


class Request(NamedTuple):
    """A request, with its whole body."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes


class Reply(NamedTuple):
    """A status and a body: at once, or in pieces, an event each."""

    status: int
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str] = MappingProxyType({})


Handle = Callable[[Request], Awaitable[Reply | None]]
"""Answers a request; None: its connection is to break, without an answer."""


class HttpServer:
    """Listens at a port of loopback, and breaks off what is open when it is closed."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> int:
        """Listen; return the port (given 0, any free one). Raises OSError."""
        self._server = await asyncio.start_server(self._connected, HOST, port, backlog=1_024)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and hang up."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_converse(self._handle, reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)


async def _converse(
    handle: Handle, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of a connection, one after the other."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=_READ_BYTES)
    try:
        while (request := await _read(http, reader, writer)) is not None:
            reply = await _unless_gone(handle(request), http, reader)
            if reply is None:
                writer.transport.abort()
                break
            await _write(http, writer, reply)
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                break
            http.start_next_cycle()
    except (h11.RemoteProtocolError, ConnectionError):
        pass  # whoever sends no HTTP gets none
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _read(
    http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """Return the next request; None where the client has hung up."""
    head, body = None, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                writer.write(
                    http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            http.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MOST_BYTES:
                raise ConnectionError("a body of more than 32 MiB")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            target = urlsplit(head.target.decode("ascii", "replace"))
            method = head.method.decode("ascii")
            return Request(method, target.path, parse_qs(target.query), bytes(body))
        else:
            return None


async def _unless_gone(
    replying: Awaitable[Reply | None], http: h11.Connection, reader: asyncio.StreamReader
) -> Reply | None:
    """Return the reply to a client; None, and the call is cancelled, where he hangs up before."""
    reply, more = asyncio.ensure_future(replying), asyncio.ensure_future(reader.read(_READ_BYTES))
    try:
        await asyncio.wait((reply, more), return_when=asyncio.FIRST_COMPLETED)
        if more.done():
            if not more.result():
                return None
            http.receive_data(more.result())  # the next request, before this one is answered
        return await reply
    finally:
        for task in (reply, more):
            task.cancel()
        await asyncio.wait((reply, more))  # nobody else may read before that


async def _write(http: h11.Connection, writer: asyncio.StreamWriter, reply: Reply) -> None:
    headers = {"content-type": "application/json", **reply.headers}
    if isinstance(reply.body, bytes):
        headers["content-length"] = str(len(reply.body))
    else:
        headers["transfer-encoding"] = "chunked"
    _send(http, writer, h11.Response(status_code=reply.status, headers=list(headers.items())))
    if isinstance(reply.body, bytes):
        _send(http, writer, h11.Data(data=reply.body))
    else:
        async for piece in reply.body:
            _send(http, writer, h11.Data(data=piece))
            await writer.drain()
    _send(http, writer, h11.EndOfMessage())
    await writer.drain()


def _send(http: h11.Connection, writer: asyncio.StreamWriter, event: h11.Event) -> None:
    writer.write(http.send(event) or b"")
