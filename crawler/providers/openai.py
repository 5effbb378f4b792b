"""Any OpenAI-compatible server: chat and completion, through aiohttp.

Rule: one POST a call, and every way that it can end is one outcome.

The address is OPENAI_BASE_URL and the key OPENAI_API_KEY; neither is ever recorded. Parameters of
our own: ``endpoint`` (``chat`` or ``completion``), ``max_output_tokens``, ``system``, ``checks``,
``response_schema`` and ``response_mime_type`` (see answer_check), ``allow_truncated``,
``retry_temperature`` (for every attempt but the first), ``stream_options`` (where the answer is
streamed; for its tokens unless it says otherwise). All others go to the server as they are, but
``stream``: that is up to whether somebody reads along.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from crawler.answer_schema import SCHEMA
from crawler.answer_schema.checker import as_json_schema
from crawler.errors import CrawlerError, Exit
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.providers.answer_check import (
    MIME_TYPE,
    require_checks,
    wants_json,
)
from crawler.providers.event_stream import EventReader
from crawler.providers.openai_reply import (
    Arrived,
    answer_in,
    broken_off,
    connection_error,
    draft_in,
    is_success,
)
from crawler.providers.openai_stream import Gathering
from crawler.redaction import redacted_answer
from crawler.states import Outcome
from crawler.states.kinds import Kind

DEFAULT_BASE_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 20
MOST_BYTES = 32 * 2**20
"""No answer is longer; a server that sends more would go on for ever."""
OWN_PARAMS = frozenset(
    {
        "allow_truncated",
        "checks",
        "endpoint",
        "max_output_tokens",
        MIME_TYPE,
        SCHEMA,
        "retry_temperature",
        "stream",
        "stream_options",
        "system",
    }
)


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield the server that the environment names. Raises CrawlerError."""
    del model
    base_url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not _is_address(base_url):
        raise CrawlerError(
            "OPENAI_BASE_URL is no address",
            "it must look like https://host/v1, or http://127.0.0.1:8080/v1 for a local server",
            "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1, with the port of yours",
            Exit.CONFIGURATION,
        )
    if base_url == DEFAULT_BASE_URL and not key:
        raise CrawlerError(
            "there is no key for api.openai.com",
            "OPENAI_API_KEY is not set",
            "export OPENAI_API_KEY=…, or OPENAI_BASE_URL=… for another server",
            Exit.DENIED,
        )
    async with session(base_url, key) as http:
        yield Server(http, base_url, [key, unquote(urlsplit(base_url).password or "")])


def check_params(model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that can't be sent. Raises CrawlerError."""
    del model
    seed = params.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise CrawlerError(
            "the parameter seed can't be used",
            f"it is {seed!r}, and has to be a whole number",
            "--param seed=1",
            Exit.USAGE,
        )


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    # What follows a ? would end up in front of the path of a call.
    return named and parts.scheme in ("http", "https") and not (parts.query or parts.fragment)


def session(base_url: str, key: str | None) -> aiohttp.ClientSession:
    """Return a session for a server; the ledger alone limits how many calls are in flight."""
    loopback = urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        trust_env=not loopback,
    )


class Server:
    """A provider: an OpenAI-compatible server at an address."""

    def __init__(
        self, http: aiohttp.ClientSession, base_url: str, secrets: Sequence[str] = ()
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._secrets = secrets
        self._host = urlsplit(base_url).hostname or ""

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        require_checks(call)
        async with self._post(call, request_body(call)) as response:
            return answer_in(call, await self._arrived(response), self._secrets)

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call and tell its text as it comes. Raises ProviderError."""
        require_checks(call)
        # Some servers keep no connection after a stream, though they say so; none is used again.
        headers = {"Connection": "close"}
        async with self._post(call, streaming_body(call), headers) as response:
            if response.content_type == "text/event-stream":
                return await self._read_events(call, response, on_text)
            answer = answer_in(call, await self._arrived(response), self._secrets)
            on_text(answer.text.removeprefix(call.prefill))
            return answer

    async def _read_events(
        self, call: Call, response: aiohttp.ClientResponse, on_text: Callable[[str], None]
    ) -> Answer:
        gathering = Gathering("text" if _is_completion(call) else "content", self._secrets)
        try:
            await _gather(response, gathering, on_text, self._secrets)
        except ProviderError as error:
            arrived = self._gathered(response, gathering)
            error.answer = draft_in(call, arrived)  # it was paid for
            raise
        return answer_in(call, self._gathered(response, gathering), self._secrets)

    def _gathered(self, response: aiohttp.ClientResponse, gathering: Gathering) -> Arrived:
        body = self._clean(gathering.body())
        return Arrived(
            response.status, response.headers, body, self._host, is_open=not gathering.ended
        )

    async def _arrived(self, response: aiohttp.ClientResponse) -> Arrived:
        body = self._clean(await _whole(response))
        return Arrived(response.status, response.headers, body, self._host)

    def _clean(self, body: bytes) -> bytes:
        """Return an answer without what only a server that means ill would put there."""
        return redacted_answer(body, self._secrets)

    @asynccontextmanager
    async def _post(
        self, call: Call, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a response with status 200; whatever keeps it from coming is a ProviderError."""
        path = "completions" if _is_completion(call) else "chat/completions"
        try:
            async with self._http.post(
                f"{self._base_url}/{path}", json=body, headers=headers, allow_redirects=False
            ) as response:
                if not is_success(response.status):
                    answer_in(call, await self._arrived(response), self._secrets)
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise connection_error("refused", error, self._secrets) from error
        except aiohttp.ClientError as error:
            raise connection_error("closed", error, self._secrets) from error


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """Return a body that has come to its end."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        _bound(len(body))
    return bytes(body)


async def _gather(
    response: aiohttp.ClientResponse,
    gathering: Gathering,
    on_text: Callable[[str], None],
    secrets: Sequence[str],
) -> None:
    """Gather the events of a response, to the end of the answer in it."""
    reader = EventReader()
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            _bound(size)
            gathering.tell(reader.feed(chunk), on_text)
            if gathering.ended:
                return
    except aiohttp.ClientError as error:
        if gathering.whole:
            return  # what is lost is at most the count of its tokens
        raise connection_error("closed", error, secrets) from error
    gathering.tell(reader.end(), on_text)
    if not gathering.whole:
        raise broken_off()


def _bound(size: int) -> None:
    if size > MOST_BYTES:
        reason = f"the answer is longer than {MOST_BYTES >> 20} MiB"
        raise ProviderError(Outcome.REJECTED, reason, kind=Kind.WORD)


def request_body(call: Call) -> dict[str, Any]:
    """Return what is posted for a call."""
    params = call.params
    body = {name: value for name, value in params.items() if name not in OWN_PARAMS}
    body["model"] = call.model
    if "max_output_tokens" in params:
        body["max_tokens"] = params["max_output_tokens"]
    if call.number > 1 and "retry_temperature" in params:
        body["temperature"] = params["retry_temperature"]
    if "seed" in params:
        body["seed"] = params["seed"] + call.number - 1
    if wants_json(params):
        body.setdefault("response_format", _response_format(params.get(SCHEMA)))
    if _is_completion(call):
        body["prompt"] = call.prompt + call.prefill
        return body
    messages = [{"role": "system", "content": params["system"]}] if "system" in params else []
    messages.append({"role": "user", "content": call.prompt})
    if call.prefill:
        messages.append({"role": "assistant", "content": call.prefill})
    body["messages"] = messages
    return body


def streaming_body(call: Call) -> dict[str, Any]:
    """Return what is posted for a call whose answer is to come in pieces."""
    options = call.params.get("stream_options", {"include_usage": True})
    asked = {"stream_options": options} if options else {}
    return {**request_body(call), "stream": True, **asked}


def _response_format(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "json_object"}
    # Not "strict": that would refuse every schema that leaves a field to the model.
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": as_json_schema(schema)},
    }


def _is_completion(call: Call) -> bool:
    return bool(call.params.get("endpoint") == "completion")
