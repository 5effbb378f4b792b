"""Connections to the service: one for each 50 calls in flight.

Rule: nothing is tried again down here. A connection carries a hundred calls at the most, and those
beyond queue unseen and lose their time; so there are as many connections as that needs. Where the
other side refuses a stream, it allows fewer: that is learned.
"""

import os
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio

from crawler.providers.vertex.messages import (
    GENERATE,
    PREDICT,
    STREAM,
    GenerateContentRequest,
    PredictRequest,
)
from crawler.providers.vertex.refusal import is_never_processed

CALLS_PER_CHANNEL = 50
MOST_REFUSED = 100
"""Streams that are refused in sequence before it is the server that is out of order."""
LARGEST_ANSWER = 32 * 1024 * 1024

OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else equal channels share one connection
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", LARGEST_ANSWER),
    ("grpc.max_send_message_length", -1),
    # A peer that is frozen is found by the second of these, not by the others.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Whoever tries is a probe that has waited for its gate: it tries for real.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# What is not encrypted stays on this machine, whatever http_proxy says.
PLAIN_OPTIONS = (*OPTIONS, ("grpc.enable_http_proxy", 0))


class Channel:
    """A connection, and how many calls are on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        # Any: what they send is made at run time. What they return are bytes: `answer` reads them.
        self.generate: Any = channel.unary_unary(
            GENERATE,
            request_serializer=GenerateContentRequest.SerializeToString,
        )
        self.stream: Any = channel.unary_stream(
            STREAM,
            request_serializer=GenerateContentRequest.SerializeToString,
        )
        self.predict: Any = channel.unary_unary(
            PREDICT,
            request_serializer=PredictRequest.SerializeToString,
        )


class Channels:
    """As many connections as there are calls for."""

    def __init__(self, target: str, tls: grpc.ChannelCredentials | None) -> None:
        self._target = target
        self._tls = tls
        self._open: list[Channel] = []
        self._most_calls = CALLS_PER_CHANNEL
        self._refused = 0

    @contextmanager
    def use(self) -> Iterator[Channel]:
        """Lend the connection with the fewest calls, a new one where all have enough."""
        channel = min(self._open, key=lambda one: one.calls, default=None)
        if channel is None or channel.calls >= self._most_calls:
            channel = self._connect()
        channel.calls += 1
        try:
            yield channel
            self._refused = 0
        except grpc.aio.AioRpcError as error:
            if is_never_processed(error):
                self._learn(channel.calls - 1)
            raise
        finally:
            channel.calls -= 1

    @property
    def is_refused(self) -> bool:
        """Whether so many streams were refused in sequence that their number is not the cause."""
        return self._refused > MOST_REFUSED

    def _learn(self, others: int) -> None:
        """Take note of a stream that was refused beside others on its connection."""
        self._refused += 1
        if others:
            self._most_calls = min(self._most_calls, others)

    def _connect(self) -> Channel:
        if self._tls is None:
            raw = grpc.aio.insecure_channel(self._target, options=PLAIN_OPTIONS)
        else:
            raw = grpc.aio.secure_channel(self._target, self._tls, options=OPTIONS)
        channel = Channel(raw)
        self._open.append(channel)
        return channel

    async def close(self) -> None:
        """Close all; no call may be in flight, it would look as if somebody had cancelled it."""
        for channel in self._open:
            await channel.channel.close()


@asynccontextmanager
async def opened(target: str, *, encrypted: bool) -> AsyncIterator[Channels]:
    """Open connections to ``host:port`` in the loop that uses them, and close them at the end.

    Raises CrawlerError where SSL_CERT_FILE names no certificates.
    """
    channels = Channels(target, grpc.ssl_channel_credentials(_roots()) if encrypted else None)
    try:
        yield channels
    finally:
        await channels.close()


def _roots() -> bytes | None:
    """Return gRPC's own authorities with those of SSL_CERT_FILE; None for gRPC's own alone."""
    path = os.environ.get("SSL_CERT_FILE")
    if not path or os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return None  # gRPC reads what is named for it alone
    from crawler.providers.http_client import authorities  # noqa: PLC0415 - it brings a client

    usual = pkgutil.get_data("grpc", "_cython/_credentials/roots.pem") or b""
    return usual + b"\n" + authorities(path)
