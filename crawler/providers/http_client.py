"""HTTP with one server, through pyreqwest: the only place that knows the client.

Rule: a response belongs to its request. A connection on which something waits that nobody asked
for, or that broke the protocol, is closed and never used again. What remains: a second response
that arrives when the next request is already out can't be told from its answer in HTTP/1.1.

A request ends by itself when its time is up, and then its connection is closed. Where it is
cancelled before the head of its response has come, the client goes on with it in the background
until then; afterwards it is closed at once.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from urllib.parse import urlsplit

import pyreqwest.client
import pyreqwest.response
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import HeaderMap
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import RequestBuilder

from crawler.errors import CrawlerError, Exit
from crawler.protocol import ProviderError
from crawler.providers.answers.reply import error_of
from crawler.providers.refusals.decision import broken_connection
from crawler.states import Outcome
from crawler.states.kinds import Kind

MOST_BYTES = 32 * 2**20
"""No answer is longer; a server that sends more would go on for ever."""
CONNECT_TIMEOUT = timedelta(seconds=20)
IDLE_TIMEOUT = timedelta(seconds=4)
"""Less than the servers in use have (5 s at uvicorn): what is sent while the other side closes is
lost."""
LONGEST_RETURN_MS = 500
"""How long a thread that others keep in Python is taken for the client's."""
_NONE: Mapping[str, str] = MappingProxyType({})
_PROXY_AUTHENTICATION_REQUIRED = 407
_PEM = b"-----BEGIN CERTIFICATE-----"

# What the client says, where that is no sentence for a person.
_SENTENCES = {
    "CaUsedAsEndEntity": "the server's certificate is one for an authority, not for a server",
    "UnknownIssuer": "the authority that signed the server's certificate is not known here"
    " (SSL_CERT_FILE can name it)",
    "InvalidContentType": "the server speaks no TLS at that port",
    "tunnel error: unsuccessful": "the proxy does not lead to the server",
}


class BrokenConnectionError(ProviderError):
    """The connection broke, or the time was up, before the response was whole."""


class _Headers(Mapping[str, str]):
    """The headers of a response; most are of no interest, so none is read before it is asked for.

    A value that is no text is as one that is not there: see `_text`.
    """

    def __init__(self, headers: HeaderMap) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        text = _text(self._headers, name)
        if text is None:
            raise KeyError(name)
        return text

    def __contains__(self, name: object) -> bool:
        return name in self._headers and _text(self._headers, str(name)) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._headers if _text(self._headers, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Response:
    """A response whose head has come; its body is read in pieces, or at once."""

    def __init__(self, response: pyreqwest.response.Response, timeout_ms: int) -> None:
        self.status = response.status
        self._response = response
        self._reader = response.body_reader
        self._timeout_ms = timeout_ms
        self._size = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, read when they are asked for; the case of names makes no difference."""
        return _Headers(self._response.headers)

    @property
    def content_type(self) -> str:
        """The type of the body, in lower case and without its parameters."""
        text = _text(self._response.headers, "content-type") or ""
        return text.partition(";")[0].strip().lower()

    async def read(self) -> bytes | None:
        """Return the next piece of the body; None at its end. Raises ProviderError."""
        try:
            piece = await self._reader.read_chunk()
        except PyreqwestError as error:
            raise _told(error, self._timeout_ms) from error
        if piece is None:
            return None
        self._size += len(piece)
        if self._size > MOST_BYTES:
            raise ProviderError(
                Outcome.REJECTED,
                f"the answer is longer than {MOST_BYTES >> 20} MiB",
                kind=Kind.WORD,
            )
        return piece.to_bytes()

    async def body(self) -> bytes:
        """Return the whole body. Raises ProviderError."""
        pieces = []
        while (piece := await self.read()) is not None:
            pieces.append(piece)
        return b"".join(pieces)


class Exchange:
    """A request, and the response to it as long as it is read: an asynchronous context manager.

    Raises ProviderError. As a generator it would cost 1 % of a row more.
    """

    def __init__(
        self, request: RequestBuilder, timeout_ms: int, *, served_before: bool = True
    ) -> None:
        self._request = request.timeout(timedelta(milliseconds=timeout_ms)).build_streamed()
        self._timeout_ms = timeout_ms
        self._served_before = served_before

    async def __aenter__(self) -> Response:
        """Send the request and wait for the head of the response."""
        try:
            response = await self._request.__aenter__()
        except PyreqwestError as error:
            raise self._told(error) from error
        if response.status == _PROXY_AUTHENTICATION_REQUIRED:
            await self.__aexit__(None, None, None)
            raise _refused_by_proxy()
        return Response(response, self._timeout_ms)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the response."""
        try:
            await self._request.__aexit__(kind, error, traceback)
        except PyreqwestError as said:
            raise self._told(said) from said
        if isinstance(error, PyreqwestError):
            raise self._told(error) from error

    def _told(self, error: PyreqwestError) -> ProviderError:
        return _told(error, self._timeout_ms, served_before=self._served_before)


class Client:
    """Sends requests; how many at once is up to whoever makes them."""

    def __init__(self, client: pyreqwest.client.Client, headers: Mapping[str, str] = _NONE) -> None:
        self._client = client
        self._usual = headers.items()

    def post(
        self,
        url: str,
        body: bytes,
        timeout_ms: int,
        headers: Mapping[str, str] = _NONE,
        *,
        in_pieces: bool = False,
        past_caches: bool = False,
        served_before: bool = True,
    ) -> Exchange:
        """Send JSON and give the response, whatever its status.

        Args:
            url: where it is sent.
            body: what is sent.
            timeout_ms: how long all of it may take, the reading included.
            headers: what is sent beside it.
            in_pieces: the body is wanted as it comes; the connection is closed after it, since
                some servers keep none after a stream, though they say so.
            past_caches: caches on the way are asked to stay out.
            served_before: somebody at the address has spoken HTTP before.

        """
        request = self._client.post(url).body_bytes(body)
        for name, value in headers.items() - self._usual:
            request = request.header(name, value)
        if past_caches:
            request = request.header("Cache-Control", "no-cache")
        if in_pieces:
            request = request.header("Connection", "close").streamed_read_buffer_limit(0)
        return Exchange(request, timeout_ms, served_before=served_before)

    def get(self, url: str, timeout_ms: int, headers: Mapping[str, str]) -> Exchange:
        """Ask for a page and give the response, whatever its status."""
        request = self._client.get(url)
        for name, value in headers.items() - self._usual:
            request = request.header(name, value)
        return Exchange(request, timeout_ms)


@asynccontextmanager
async def connected(
    base_url: str, proxy: str | None = None, headers: Mapping[str, str] = _NONE
) -> AsyncIterator[Client]:
    """Yield a client for a server; nothing is sent yet. Raises CrawlerError.

    ``headers`` are sent with each request that has no other values for them.
    """
    try:
        client = _builder(base_url, proxy, headers).build()
    except (PyreqwestError, ValueError) as error:
        raise CrawlerError(
            "no connection can be set up",
            _last_cause(error),
            "look at the certificates of this machine, SSL_CERT_FILE and https_proxy",
            Exit.CONFIGURATION,
        ) from error
    try:
        async with client:
            yield Client(client, headers)
    finally:
        await _out_of_python()


async def _out_of_python() -> None:
    """Wait until the client's thread has come back from Python, where it tells of a response.

    An interpreter that ends while it is there aborts: 5 of 100 processes that ended with their last
    response did.
    """
    for _ in range(LONGEST_RETURN_MS):
        known = {thread.ident for thread in threading.enumerate()}
        if sys._current_frames().keys() <= known:  # noqa: SLF001 - a public name, for uses like this
            return
        await asyncio.sleep(0.001)


def _builder(
    base_url: str, proxy: str | None, headers: Mapping[str, str]
) -> pyreqwest.client.ClientBuilder:
    builder = (
        pyreqwest.client.ClientBuilder()
        .default_headers({"Content-Type": "application/json", **headers})
        .user_agent("crawler")
        .follow_redirects(enable=False)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_allow_obsolete_multiline_headers_in_responses(value=True)
        .no_proxy()  # the client would read the environment in its own way
    )
    if proxy is not None:
        builder = builder.proxy(ProxyBuilder.all(proxy))
    if "https" not in (urlsplit(base_url).scheme, urlsplit(proxy or "").scheme):
        # Nothing is encrypted, so the system's certificates are not read (13 ms), or missed.
        return builder.danger_accept_invalid_certs(enable=True)
    path = os.environ.get("SSL_CERT_FILE")
    return builder.add_root_certificate_pem(authorities(path)) if path else builder


def authorities(path: str) -> bytes:
    """Return the certificates that a user trusts beside the system's. Raises CrawlerError."""
    try:
        content, cause = Path(path).read_bytes(), "it holds no certificate in the format PEM"
    except OSError as error:
        content, cause = b"", f"{path}: {error.strerror}"
    if _PEM in content:
        return content
    raise CrawlerError(
        "SSL_CERT_FILE names no certificates",
        cause,
        "export SSL_CERT_FILE=/path/to/authorities.pem, or unset SSL_CERT_FILE",
        Exit.CONFIGURATION,
    )


def _told(error: PyreqwestError, timeout_ms: int, *, served_before: bool = True) -> ProviderError:
    """Return what an error of the client means for a call."""
    cause = _last_cause(error)
    late = isinstance(error, RequestTimeoutError)
    if "client error (Connect)" in _causes(error):
        if "proxy authorization required" in cause:
            return _refused_by_proxy()
        said = f"nobody is there within {CONNECT_TIMEOUT.seconds} s" if late else cause
        return error_of(broken_connection(_how(cause), f"cannot connect: {said}"))
    if late:
        reason, kind = f"no answer within {timeout_ms / 1000:g} s", Kind.TIMEOUT_UPSTREAM
    elif cause in _NO_HTTP and not served_before:
        return error_of(broken_connection("not_http", f"what is at that port is no HTTP: {cause}"))
    else:
        reason, kind = f"the connection broke: {cause}", Kind.TRANSIENT
    return BrokenConnectionError(Outcome.TRANSIENT, reason, kind=kind)


_NO_HTTP = ("invalid HTTP version parsed", "received unexpected message from connection")


def _how(cause: str) -> str:
    """Return how a connection failed to come about: a name of `CONNECTIONS`."""
    if "certificate" in cause:
        return "certificate"
    return "tls" if cause == _SENTENCES["InvalidContentType"] else "refused"


def _refused_by_proxy() -> ProviderError:
    return ProviderError(
        Outcome.DENIED,
        "the proxy wants a user and a password, or others than it got (HTTP 407)",
        status_code=_PROXY_AUTHENTICATION_REQUIRED,
        kind=Kind.CREDENTIALS,
    )


def _causes(error: Exception) -> list[str]:
    if isinstance(error, DetailedPyreqwestError):
        return [cause["message"] for cause in error.details["causes"] or ()]
    return []


def _last_cause(error: Exception) -> str:
    """Return what lies at the bottom of an error, as a sentence; it is in the client's words."""
    said = (_causes(error) or [str(error)])[-1]
    for sign, sentence in _SENTENCES.items():
        if sign in said:
            return sentence
    return said.partition(" (os error")[0]


def _text(headers: HeaderMap, name: str) -> str | None:
    try:
        return headers.get(name)
    except ValueError:  # what is not ASCII has no meaning that is agreed on
        return None
