"""Any OpenAI-compatible server: chat and completion.

Rule: one POST a call, and every way that it can end is one outcome.

The address is OPENAI_BASE_URL and the key OPENAI_API_KEY; neither is ever recorded. Parameters of
our own: ``endpoint`` (``chat`` or ``completion``), ``max_output_tokens``, ``system``, ``checks``,
``response_schema`` and ``response_mime_type`` (see answer_check), ``allow_truncated``,
``retry_temperature`` (for every attempt but the first), ``stream_options`` (where the answer is
streamed; for its tokens unless it says otherwise). All others go to the server as they are, but
``stream``: that is up to whether somebody reads along.
"""

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

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
from crawler.providers.http_client import BrokenConnectionError, Client, Response, connected
from crawler.providers.openai_reply import (
    Arrived,
    answer_in,
    broken_off,
    draft_in,
    is_success,
)
from crawler.providers.openai_stream import Gathering
from crawler.providers.proxy import proxy_for
from crawler.providers.refusal_text import Said
from crawler.providers.renamed_params import learned, other_name, renamed
from crawler.redaction import HeldBack, redacted_answer

DEFAULT_BASE_URL = "https://api.openai.com/v1"
LARGE = 2**20
"""Bytes of an answer above which it is read in a thread."""
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
    _require_address(base_url)
    _require_key(base_url, key)
    proxy = proxy_for(base_url, os.environ)
    async with connected(base_url, key, proxy) as http:
        yield Server(http, base_url, [key, *_credentials(base_url), *_credentials(proxy or "")])


def _require_address(base_url: str) -> None:
    if not _is_address(base_url):
        raise CrawlerError(
            "OPENAI_BASE_URL is no address",
            "it must look like https://host/v1, or http://127.0.0.1:8080/v1 for a local server",
            "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1, with the port of yours",
            Exit.CONFIGURATION,
        )


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


def _require_key(base_url: str, key: str) -> None:
    """Refuse a key that can't be sent, or that is missing. Raises CrawlerError."""
    if not (key.isascii() and key.isprintable()):
        what, why = "OPENAI_API_KEY is no key", "a line break or a letter in it can't be sent"
    elif key and urlsplit(base_url).username is not None:
        what = "only one of OPENAI_API_KEY and the user in OPENAI_BASE_URL can be sent"
        why = "both are set"
    elif not key and base_url == DEFAULT_BASE_URL:
        what, why = "there is no key for api.openai.com", "OPENAI_API_KEY is not set"
    else:
        return
    hint = "export OPENAI_API_KEY=…, or OPENAI_BASE_URL=… for another server"
    raise CrawlerError(what, why, hint, Exit.DENIED)


def _credentials(url: str) -> list[str]:
    """Return what is secret in an address: a key may stand in the place of the user, too."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    sent = b64encode(f"{user}:{password}".encode()).decode().rstrip("=")  # in its header
    return [user, password, sent] if user or password else []


class Server:
    """A provider: an OpenAI-compatible server at an address."""

    def __init__(self, http: Client, base_url: str, secrets: Sequence[str] = ()) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._secrets = secrets
        self._host = urlsplit(base_url).hostname or ""
        self._names: dict[str, str] = {}  # of parameters: ours, and what the server calls them

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        require_checks(call)
        body = renamed(request_body(call), self._names)
        async with self._post(call, body) as response:
            return await self._answer(call, body, response)

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call and tell its text as it comes. Raises ProviderError."""
        require_checks(call)
        body = renamed(streaming_body(call), self._names)
        async with self._post(call, body, in_pieces=True) as response:
            if is_success(response.status) and response.content_type == "text/event-stream":
                return await self._read_events(call, response, on_text)
            answer = await self._answer(call, body, response)
            on_text(answer.text.removeprefix(call.prefill))
            return answer

    def _post(
        self, call: Call, body: Mapping[str, Any], *, in_pieces: bool = False
    ) -> AbstractAsyncContextManager[Response]:
        return self._http.post(
            self._url(call),
            json.dumps(body).encode(),
            call.timeout_ms,
            in_pieces=in_pieces,
            past_caches=call.number > 1,  # their answer would be no better the second time
            served_before=call.served_before,
        )

    async def _answer(self, call: Call, body: Mapping[str, Any], response: Response) -> Answer:
        content = await response.body()
        arrived = Arrived(response.status, response.headers, content, self._host)
        if len(content) <= LARGE:
            return self._read(call, body, arrived)
        # Others wait for the loop.
        arrived = arrived._replace(headers=dict(arrived.headers))
        return await asyncio.to_thread(self._read, call, body, arrived)

    def _read(self, call: Call, body: Mapping[str, Any], arrived: Arrived) -> Answer:
        """Return the answer that came. Raises ProviderError; a name that it teaches costs nothing.

        What was sent before a name was known is asked again under it, like the first.
        """
        arrived = arrived._replace(body=self._clean(arrived.body))
        if not is_success(arrived.status):
            said = Said(arrived.status, arrived.headers, arrived.body, secrets=self._secrets)
            name = other_name(said, body.keys())
            if name is not None and name[1] not in self._names:
                self._names[name[0]] = name[1]
                raise learned(*name, arrived.status)
        return answer_in(call, arrived, self._secrets)

    async def _read_events(
        self, call: Call, response: Response, on_text: Callable[[str], None]
    ) -> Answer:
        gathering = Gathering("text" if _is_completion(call) else "content", self._secrets)
        told = HeldBack(self._secrets, on_text)
        try:
            await _gather(response, gathering, told.read)
            told.end()
        except ProviderError as error:
            error.answer = draft_in(call, self._gathered(response, gathering))  # it was paid for
            raise
        return answer_in(call, self._gathered(response, gathering), self._secrets)

    def _gathered(self, response: Response, gathering: Gathering) -> Arrived:
        body = self._clean(gathering.body())
        is_open = not gathering.ended
        return Arrived(response.status, response.headers, body, self._host, is_open)

    def _url(self, call: Call) -> str:
        return f"{self._base_url}/{'completions' if _is_completion(call) else 'chat/completions'}"

    def _clean(self, body: bytes) -> bytes:
        """Return an answer without what only a server that means ill would put there."""
        return redacted_answer(body, self._secrets)


async def _gather(response: Response, gathering: Gathering, on_text: Callable[[str], None]) -> None:
    """Gather the events of a response, to the end of the answer in it."""
    reader = EventReader()
    try:
        while (piece := await response.read()) is not None:
            gathering.tell(reader.feed(piece), on_text)
            if gathering.ended:
                return
    except BrokenConnectionError:
        if gathering.whole:
            return  # what is lost is at most the count of its tokens
        raise
    gathering.tell(reader.end(), on_text)
    if not gathering.whole:
        raise broken_off()


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
