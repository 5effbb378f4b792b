"""Any OpenAI-compatible server: chat and completion, through aiohttp.

Rule: one POST a call, and every way that it can end is one outcome.

The address is OPENAI_BASE_URL and the key OPENAI_API_KEY; neither is ever recorded. Parameters of
our own: ``endpoint`` (``chat`` or ``completion``), ``max_output_tokens``, ``system``, ``checks``,
``response_schema`` and ``response_mime_type`` (see answer_check), ``allow_truncated``,
``retry_temperature`` (for every attempt but the first). All others go to the server as they are.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from crawler.answer_schema import SCHEMA, in_lower_case
from crawler.errors import CrawlerError, Exit
from crawler.providers.answer_check import (
    MIME_TYPE,
    accepted,
    require_checks,
    wants_json,
)
from crawler.providers.protocol import Answer, Call, Provider, ProviderError
from crawler.states import Outcome

DEFAULT_BASE_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 20
REASON_LENGTH = 300
OWN_PARAMS = frozenset(
    {
        "allow_truncated",
        "checks",
        "endpoint",
        "max_output_tokens",
        MIME_TYPE,
        SCHEMA,
        "retry_temperature",
        "system",
    }
)
TRANSIENT_CODES = frozenset({408, 409, 425})


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield the server that the environment names. Raises CrawlerError."""
    del model
    base_url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not _is_address(base_url):
        raise CrawlerError(
            "OPENAI_BASE_URL is no address",
            "it must look like https://host/v1",
            "export OPENAI_BASE_URL=https://host/v1",
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
        yield Server(http, base_url, key)


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


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

    def __init__(self, http: aiohttp.ClientSession, base_url: str, key: str = "") -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._key = key

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        require_checks(call)
        path = "completions" if _is_completion(call) else "chat/completions"
        status, headers, body = await self._post(f"{self._base_url}/{path}", call)
        if status != 200:  # noqa: PLR2004 - the one good code
            raise refusal(status, headers, body, self._key)
        return read_answer(call, body)

    async def _post(self, url: str, call: Call) -> tuple[int, Mapping[str, str], bytes]:
        """Send a call; whatever keeps an answer from coming is a ProviderError."""
        try:
            async with self._http.post(
                url, json=request_body(call), allow_redirects=False
            ) as response:
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderError(Outcome.UNAVAILABLE, f"cannot connect: {_cause(error)}") from error
        except aiohttp.ClientError as error:
            reason = f"the connection broke: {_cause(error)}"
            raise ProviderError(Outcome.TRANSIENT, reason) from error


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
        body["seed"] = int(params["seed"]) + call.number - 1
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


def _response_format(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "json_object"}
    # Not "strict": that would refuse every schema that leaves a field to the model.
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": in_lower_case(schema)},
    }


def read_answer(call: Call, body: bytes) -> Answer:
    """Return the answer in a response with status 200. Raises ProviderError if it is none."""
    try:
        content = json.loads(body)
    except (RecursionError, ValueError) as error:
        raise ProviderError(Outcome.TRANSIENT, "the answer is cut off or not JSON") from error
    try:
        choice = content["choices"][0]
        finish_reason = choice.get("finish_reason")
        message = choice if _is_completion(call) else choice["message"]
        text = message["text" if _is_completion(call) else "content"] or ""
        usage = content.get("usage") or {}
        thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        refused = message.get("refusal")
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ProviderError(Outcome.REJECTED, "the answer has not the form of one") from error
    if not isinstance(text, str):
        raise ProviderError(Outcome.REJECTED, "the answer is no text")
    written = Answer(
        text,
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        thought,
        finish_reason,
        content.get("model"),
        truncated=finish_reason == "length",
    )
    blocked = refused or finish_reason == "content_filter"
    return accepted(call, written, f"the model refused ({finish_reason})" if blocked else None)


def refusal(status: int, headers: Mapping[str, str], body: bytes, key: str) -> ProviderError:
    """Return the error that a response with another status than 200 stands for."""
    if status in (401, 403):
        outcome = Outcome.DENIED
    elif status == 429:  # noqa: PLR2004 - Too Many Requests
        outcome = Outcome.THROTTLED
    elif status >= 500 or status in TRANSIENT_CODES:  # noqa: PLR2004 - server errors
        outcome = Outcome.TRANSIENT
    else:
        outcome = Outcome.REJECTED
    return ProviderError(
        outcome,
        f"HTTP {status}: {_message(body, key)}",
        status_code=status,
        retry_after_ms=retry_after_ms(headers, time.time()) or None,  # 0 s is no advice
    )


def retry_after_ms(headers: Mapping[str, str], now_s: float) -> int | None:
    """Return the pause that a server asks for: retry-after-ms, Retry-After (RFC 9110, 10.2.3)."""
    try:
        if "retry-after-ms" in headers:
            return max(0, round(float(headers["retry-after-ms"])))
        value = headers.get("Retry-After")
        if value is None:
            return None
        if value.strip().isdigit():
            return int(value) * 1000
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0, round((date.timestamp() - now_s) * 1000))
    except (OverflowError, ValueError):
        return None


def _is_completion(call: Call) -> bool:
    return bool(call.params.get("endpoint") == "completion")


def _message(body: bytes, key: str) -> str:
    """Return what an error response says, in one short line; a key that it echoes is left out."""
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (KeyError, RecursionError, TypeError, ValueError):
        message = body.decode("utf-8", "replace")
    text = " ".join(str(message).split())
    return (text.replace(key, "…") if key else text)[:REASON_LENGTH]


def _cause(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:REASON_LENGTH]
