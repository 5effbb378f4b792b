"""Any OpenAI-compatible server: chat and completion.

Rule: one POST a call, and every way that it can end is one outcome.

Which server a name means is in `servers`, and what is posted in `request`. Its address and
its key are never recorded. Parameters of our own: ``endpoint`` (``chat`` or ``completion``),
``headers``, ``max_output_tokens``, ``system``, ``checks``, ``response_schema`` and
``response_mime_type`` (see answers.check), ``allow_truncated``, ``retry_temperature`` (for every
attempt but the first), ``stream_options`` (where the answer is streamed; for its tokens unless it
says otherwise). All others go to the server as they are, but ``stream``: that is up to whether
somebody reads along.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import require_checks
from crawler.providers.answers.event_stream import EventReader
from crawler.providers.answers.off_loop import LARGE, off_loop
from crawler.providers.http_client import (
    BrokenConnectionError,
    Client,
    Exchange,
    Response,
    connected,
)
from crawler.providers.openai.headers import added_headers, usual_headers
from crawler.providers.openai.keys import Key, require_key
from crawler.providers.openai.models import models_in
from crawler.providers.openai.renamed_params import asked_again, learned, other_name, renamed
from crawler.providers.openai.reply import (
    Arrived,
    answer_in,
    broken_off,
    draft_in,
    is_success,
)
from crawler.providers.openai.request import (
    check_params,
    is_completion,
    request_body,
    streaming_body,
)
from crawler.providers.openai.servers import Address, address_of, secrets_in
from crawler.providers.openai.stream import Gathering
from crawler.providers.proxy import proxy_for
from crawler.providers.refusals.decision import refusal_of
from crawler.providers.refusals.said import Said
from crawler.redaction import HeldBack, read_secrets, remember
from crawler.states.kinds import Kind

__all__ = ["Server", "check_params", "connect"]
LIST_TIMEOUT_MS = 3_000
_NO_PAGE = (404, 405)
_UNAUTHORIZED = 401


@asynccontextmanager
async def connect(model: str, name: str = "openai") -> AsyncIterator["Server"]:
    """Yield the server that has a name. Raises CrawlerError."""
    address = address_of(name, model, os.environ)
    base_url = address.bases[0]
    key = Key(name)
    await key.read()
    require_key(name, key.text, base_url)
    proxy = proxy_for(base_url, os.environ)
    secrets = [*secrets_in(f"{base_url}{address.query}"), *secrets_in(proxy or "")]
    remember(secrets)
    async with connected(base_url, proxy, {**usual_headers(name), **key.headers()}) as http:
        yield Server(http, address, secrets, name=name, key=key)


class _Sent(NamedTuple):
    """What a call was sent with, beside its body."""

    base: str
    key: str
    headers: Mapping[str, str]


class Server:
    """A provider: an OpenAI-compatible server at an address."""

    def __init__(
        self,
        http: Client,
        address: Address,
        secrets: Sequence[str] = (),
        *,
        name: str = "",
        key: Key | None = None,
    ) -> None:
        self._http = http
        self._key = key or Key(name)
        self._bases = list(address.bases)
        self._query = address.query
        self._fixed = list(secrets)
        self._headers = usual_headers(name)
        self._host = urlsplit(address.bases[0]).hostname or ""
        self._names: dict[str, str] = {}  # of parameters: ours, and what the server calls them

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        require_checks(call)
        body = renamed(request_body(call), self._names)
        sent = self._sending(call)
        async with self._post(call, body, sent) as response:
            arrived = self._arrived(response, await response.body())
            return await self._answer(call, body, sent, arrived)

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call and tell its text as it comes. Raises ProviderError."""
        require_checks(call)
        body = renamed(streaming_body(call), self._names)
        sent = self._sending(call)
        async with self._post(call, body, sent, in_pieces=True) as response:
            if is_success(response.status) and response.content_type == "text/event-stream":
                return await self._read_events(call, response, on_text)
            arrived = self._arrived(response, await response.body())
            answer = await self._answer(call, body, sent, arrived)
            on_text(answer.text.removeprefix(call.prefill))
            return answer

    def _post(
        self, call: Call, body: Mapping[str, Any], sent: "_Sent", *, in_pieces: bool = False
    ) -> Exchange:
        return self._http.post(
            self._url(sent.base, "completions" if is_completion(call) else "chat/completions"),
            json.dumps(body).encode(),
            call.timeout_ms,
            sent.headers,
            in_pieces=in_pieces,
            past_caches=call.number > 1,  # their answer would be no better the second time
            served_before=call.served_before,
        )

    async def _answer(
        self, call: Call, body: Mapping[str, Any], sent: "_Sent", arrived: Arrived
    ) -> Answer:
        """Return the answer that came. Raises ProviderError; what it teaches costs nothing.

        What was sent before a name, a path or a key was known is asked again, like the first.
        """
        if is_success(arrived.status):
            self._settle(sent)
            return await off_loop(len(arrived.body), answer_in, call, arrived, self._secrets)
        said = Said(arrived.status, arrived.headers, arrived.body, secrets=self._secrets)
        if arrived.status == _UNAUTHORIZED and await self._key.has_changed(sent.key):
            raise asked_again("the key was refused, and there is another", arrived.status)
        if self._is_elsewhere(said, sent):
            raise asked_again("nothing is at that path; another is tried", arrived.status)
        name = other_name(said, body.keys())
        if name is not None and name[1] not in self._names:
            self._names[name[0]] = name[1]
            raise learned(*name, arrived.status)
        return answer_in(call, arrived, self._secrets)

    def _settle(self, sent: "_Sent") -> None:
        """Note that path and key of a call are good."""
        self._bases = [sent.base]
        if sent.key == self._key.text:
            self._key.prove()

    def _is_elsewhere(self, said: Said, sent: "_Sent") -> bool:
        """Tell whether a call went to a path that the server does not have, and another is left."""
        if said.status not in _NO_PAGE or refusal_of(said).kind is not Kind.CONFIGURATION:
            return False
        if sent.base == self._bases[0] and len(self._bases) > 1:
            self._bases.pop(0)
        return sent.base != self._bases[0]

    async def models(self) -> list[dict[str, Any]]:
        """Return the models that the server lists; none where it offers no list."""
        headers = {**self._headers, **self._key.headers()}
        for base in list(self._bases):
            try:
                async with self._http.get(
                    self._url(base, "models"), LIST_TIMEOUT_MS, headers
                ) as response:
                    body = await response.body() if is_success(response.status) else b""
            except ProviderError:
                return []
            found = await off_loop(len(body), models_in, body, self._secrets)
            if found:
                self._bases = [base]
                return found
        return []

    async def _read_events(
        self, call: Call, response: Response, on_text: Callable[[str], None]
    ) -> Answer:
        gathering = Gathering("text" if is_completion(call) else "content", self._secrets)
        held = HeldBack(self._secrets)
        try:
            await _gather(response, gathering, held, on_text)
            if text := held.end():
                on_text(text)
        except ProviderError as error:
            arrived = await self._gathered(response, gathering)
            error.answer = await off_loop(len(arrived.body), draft_in, call, arrived, self._secrets)
            raise  # it was paid for
        arrived = await self._gathered(response, gathering)
        return await off_loop(len(arrived.body), answer_in, call, arrived, self._secrets)

    async def _gathered(self, response: Response, gathering: Gathering) -> Arrived:
        body = await off_loop(gathering.size, gathering.body)
        return self._arrived(response, body, is_open=not gathering.ended)

    def _arrived(self, response: Response, body: bytes, *, is_open: bool = False) -> Arrived:
        # A thread can't read what belongs to the client.
        headers = response.headers if len(body) <= LARGE else dict(response.headers)
        return Arrived(response.status, headers, body, self._host, is_open)

    def _url(self, base: str, path: str) -> str:
        return f"{base}/{path}{self._query}"

    def _sending(self, call: Call) -> "_Sent":
        """Return what a call is sent with. Raises CrawlerError for a variable that is missing."""
        added = added_headers(call.params)
        headers = {**self._headers, **self._key.headers()}
        if not added:
            return _Sent(self._bases[0], self._key.text, headers)
        given = {name.lower() for name in added}
        usual = {name: value for name, value in headers.items() if name.lower() not in given}
        return _Sent(self._bases[0], self._key.text, {**usual, **added})

    @property
    def _secrets(self) -> list[str]:
        """What must be in nothing that is kept."""
        return [*self._fixed, self._key.text, *read_secrets()]


async def _gather(
    response: Response, gathering: Gathering, held: HeldBack, on_text: Callable[[str], None]
) -> None:
    """Gather the events of a response, to the end of the answer in it, and tell their text."""
    reader = EventReader()
    try:
        while (piece := await response.read()) is not None:
            await _tell(reader.feed(piece), gathering, held, on_text)
            if gathering.ended:
                return
    except BrokenConnectionError:
        if gathering.whole:
            return  # what is lost is at most the count of its tokens
        raise
    await _tell(reader.end(), gathering, held, on_text)
    if not gathering.whole:
        raise broken_off()


async def _tell(
    events: Iterable[bytes], gathering: Gathering, held: HeldBack, on_text: Callable[[str], None]
) -> None:
    """Take in events and tell their text, up to the last that counts. Raises ProviderError."""
    for event in events:
        if gathering.ended:
            return
        text = await off_loop(len(event), _take_in, event, gathering, held)
        if text:
            on_text(text)


def _take_in(event: bytes, gathering: Gathering, held: HeldBack) -> str:
    return held.read(gathering.add(event))
