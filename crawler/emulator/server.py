"""The emulator itself: a gRPC server on loopback with the paths of Vertex AI.

Rule: it carries out what is decided, and nothing else. Bytes go in and out, so that gRPC's own
costs are most of what a call costs.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from crawler.clock import since_boot_ms, steady_clock, wall_ms
from crawler.emulator import library_calls, wire
from crawler.emulator.connections import sever
from crawler.emulator.decision import SILENT, Call, Desk
from crawler.emulator.http_server import HttpServer
from crawler.emulator.settings import HOST, Settings
from crawler.emulator.tally import Tally
from crawler.emulator.web import PAUSES_PER_LATENCY, Web
from crawler.errors import CrawlerError, Exit
from crawler.providers.vertex.messages import REQUEST_TYPE_HEADER, SERVICE

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else two of them could have one port
    ("grpc.max_concurrent_streams", 100_000),
    # Of calls that arrive at once, some of those above 1,000 would else be CANCELLED.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class Emulator:
    """A server, and what it has seen: ``tally``."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self.tally = tally
        self._settings = settings
        self._clock = steady_clock(wall_ms() - since_boot_ms())
        self._desk = Desk(settings, tally, self._clock())
        self._server: Any = None
        self._web: HttpServer | None = None
        self._port, self._http_port = settings.port, settings.http_port
        self._tls = None if settings.tls is None else _credentials(settings.tls)

    @property
    def endpoint(self) -> str:
        """The address to connect to, as HOST:PORT."""
        return f"{HOST}:{self._port}"

    @property
    def http_address(self) -> str | None:
        """The address of its HTTP, http://HOST:PORT; None where it is not served."""
        return None if self._http_port is None else f"http://{HOST}:{self._http_port}"

    def requests_last_minute(self) -> int:
        """Return how many requests came in the last minute."""
        return self.tally.last_minute(self._clock() / 1000)

    async def open_port(self) -> None:
        """Listen and serve; on the same port as before, if there was one. Raises CrawlerError."""
        server = grpc.aio.server(options=_OPTIONS)
        handlers = {
            "GenerateContent": grpc.unary_unary_rpc_method_handler(self._generate),
            "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(self._stream),
            "Predict": grpc.unary_unary_rpc_method_handler(self._predict),
            "ServerStreamingPredict": grpc.unary_stream_rpc_method_handler(self._stream_predict),
        }
        tokens = {"CountTokens": grpc.unary_unary_rpc_method_handler(_count_tokens)}
        cards = {"GetPublisherModel": grpc.unary_unary_rpc_method_handler(_model_card)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler(library_calls.MODEL_GARDEN, cards),
                grpc.method_handlers_generic_handler(library_calls.UTILITY, tokens),
            )
        )
        try:
            self._port = self._add_port(server)
        except RuntimeError as error:
            raise port_is_taken(self._port) from error
        await server.start()
        self._server = server
        await self._open_http()

    async def _open_http(self) -> None:
        if self._http_port is None:
            return
        web = Web(self._desk, self.tally, self._clock, self._settings.models)
        try:
            server = HttpServer(web.reply)
            self._http_port = await server.open(self._http_port)
        except OSError as error:
            raise port_is_taken(self._http_port) from error
        self._web = server

    def _add_port(self, server: Any) -> int:
        if self._tls is None:
            return int(server.add_insecure_port(self.endpoint))
        return int(server.add_secure_port(self.endpoint, self._tls))

    async def close_port(self) -> None:
        """Break all calls off and listen no more: who connects is refused."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        web, self._web = self._web, None
        if web is not None:
            await web.close()

    async def keep_outage(self) -> None:
        """Close or open the port if an outage has begun or ended; to be called now and then."""
        if self._settings.outage_kind != "refused":
            return
        is_out = self._desk.is_out(self._clock())
        if is_out and self._server is not None:
            await self.close_port()
        elif not is_out and self._server is None:
            await self.open_port()

    async def _generate(self, body: bytes, context: Any) -> bytes:
        call = self._desk.decide("GenerateContent", wire.read_generate(body), self._clock())
        async with self._carried_out(call, context):
            return wire.generated(call.asked, call.answers[0], _tier(context))

    async def _stream(self, body: bytes, context: Any) -> None:
        call = self._desk.decide("StreamGenerateContent", wire.read_generate(body), self._clock())
        async with self._carried_out(call, context):
            chunks = wire.streamed(call.asked, call.answers[0], _tier(context))
            await _write(chunks, call, context)

    async def _stream_predict(self, body: bytes, context: Any) -> None:
        asked = library_calls.read_streaming_predict(body)
        call = self._desk.decide("ServerStreamingPredict", asked, self._clock())
        async with self._carried_out(call, context):
            await _write(library_calls.streamed_prediction(asked, call.answers), call, context)

    async def _predict(self, body: bytes, context: Any) -> bytes:
        call = self._desk.decide("Predict", wire.read_predict(body), self._clock())
        async with self._carried_out(call, context):
            return wire.predicted(call.asked, call.answers)

    @asynccontextmanager
    async def _carried_out(self, call: Call, context: Any) -> AsyncIterator[None]:
        """Wait as long as the call takes, and end it here unless there is an answer to give."""
        if not call.is_let_in:
            await _end(call, context)
        with self.tally.carrying_out():
            if call.fate.latency_ms:
                await asyncio.sleep(call.fate.latency_ms / 1000)
            if call.code != "OK":
                await _end(call, context)
            yield
            self.tally.answered[call.word] += 1


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Emulator]:
    """Serve until the end of the block. Raises CrawlerError, and OSError for a log."""
    tally = Tally(settings.log)
    emulator = Emulator(settings, tally)
    try:
        await emulator.open_port()
        yield emulator
    finally:
        await emulator.close_port()
        tally.close()


def port_is_taken(port: int) -> CrawlerError:
    """Return the error of a port that somebody else listens at."""
    return CrawlerError(
        f"the emulator can't listen at {HOST}:{port}",
        "another program does",
        "crawler emulator --port 0 takes a port that is free",
        Exit.CONFIGURATION,
    )


async def _write(chunks: Sequence[bytes], call: Call, context: Any) -> None:
    """Write the pieces of a stream, with pauses between them."""
    await context.write(chunks[0])
    for chunk in chunks[1:]:
        await asyncio.sleep(call.fate.latency_ms / 1000 / PAUSES_PER_LATENCY)
        await context.write(chunk)


async def _count_tokens(body: bytes, context: Any) -> bytes:
    del context  # it costs nothing, and no quota counts it
    return library_calls.counted(body)


async def _model_card(body: bytes, context: Any) -> bytes:
    del context
    return library_calls.model_card(body)


def _credentials(path: Path) -> Any:
    from crawler.emulator.certificate import credentials_with  # noqa: PLC0415 - only TLS needs it

    return credentials_with(path)


async def _end(call: Call, context: Any) -> None:
    """End a call without an answer: with its status, or never."""
    if call.fate.fault == "reset":
        sever(context.peer())
    if call.fate.fault in SILENT:
        await asyncio.get_running_loop().create_future()  # until the client, or the port, is gone
    assert call.status is not None
    await context.abort(call.status.code, call.status.message, call.status.metadata)


def _tier(context: Any) -> str | None:
    """Return the tier that the request asks for."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_TYPE_HEADER:
            return str(value)
    return None
