"""The provider `vertex`: Gemini, PaLM-shaped prediction and deployed endpoints, over gRPC.

Rule: one call a request, with a deadline, and every way that it can end is one outcome.

Where and as whom is found in the environment: Application Default Credentials,
GOOGLE_CLOUD_PROJECT, GOOGLE_CLOUD_LOCATION; or VERTEX_EMULATOR_HOST=host:port for a server on this
machine, in plain text and without credentials. The parameters are told in `request`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc

from crawler.errors import CrawlerError, Exit
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.providers.answers.check import require_checks
from crawler.providers.answers.off_loop import off_loop
from crawler.providers.vertex.access import Access, Headers, Token, find_access, resource_name
from crawler.providers.vertex.answer import (
    message_in,
    read_draft,
    read_generated,
    read_predicted,
    text_of,
)
from crawler.providers.vertex.channels import LARGEST_ANSWER, Channels, opened
from crawler.providers.vertex.messages import PREDICT, STREAM, PredictResponse
from crawler.providers.vertex.refusal import REASON_LENGTH, is_never_processed, refused
from crawler.providers.vertex.request import Shape, request, shape
from crawler.redaction import HeldBack
from crawler.states import Outcome
from crawler.states.kinds import Kind

MESSAGE_BYTES = 512
"""What a message costs in memory beside its content."""


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield the service that the environment names. Raises CrawlerError, ProviderError."""
    access = await asyncio.to_thread(find_access, model)
    token = None if access.credentials is None else Token(access.credentials)
    if token is not None:
        await token.headers()  # whoever is refused hears of it before anything is asked
    async with opened(access.target, encrypted=token is not None) as channels:
        yield Service(model, access, channels, token)


def check_params(model: str, params: Mapping[str, Any]) -> None:
    """Refuse a name that is none, and parameters that can't be sent. Raises CrawlerError."""
    if any(map(str.isspace, model)):
        raise CrawlerError(
            f"there is no model {model!r}",
            "the name of a model has no blank in it",
            "--model gemini-2.5-flash, for example",
            Exit.USAGE,
        )
    try:
        shape(model, resource_name(model, "project", "location"), params)
    except ValueError as error:
        raise CrawlerError(
            "the parameters can't be sent to Vertex AI",
            str(error),
            "they are named as in its GenerationConfig, and as docs/vertex.md says",
            Exit.USAGE,
        ) from error


class Service:
    """A provider: a model of Vertex AI."""

    def __init__(self, model: str, access: Access, channels: Channels, token: Token | None) -> None:
        self._model = model
        self._resource = access.resource
        self._channels = channels
        self._token = token
        # Only an emulator is spoken to without credentials.
        self._emulator = access.target if access.credentials is None else None
        self._shapes: dict[int, tuple[Mapping[str, Any], Shape]] = {}

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        require_checks(call)
        made = self._shape(call.params)
        if made.method == STREAM:
            return await self._stream(call, made, lambda _: None)
        asked, bearer = _request(made, call), await self._bearer()
        metadata = made.headers + bearer
        with self._refusals(bearer), self._channels.use() as channel:
            send = channel.predict if made.method == PREDICT else channel.generate
            body = await send(asked, timeout=call.timeout_ms / 1000, metadata=metadata)
        size = 0 if body is None else len(body)  # it is where a call ended well without an answer
        return await off_loop(size, _answer, call, made, body, self._secrets())

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call and tell its text as it comes. Raises ProviderError."""
        require_checks(call)
        made = self._shape(call.params)
        if made.method == PREDICT:
            return await self.generate(call)  # it comes as a whole, the prefill with it
        return await self._stream(call, made, on_text)

    async def _stream(self, call: Call, made: Shape, on_text: Callable[[str], None]) -> Answer:
        asked, bearer = _request(made, call), await self._bearer()
        metadata = made.headers + bearer
        messages: list[Any] = []
        size, held = 0, HeldBack(self._secrets())
        try:
            with self._refusals(bearer), self._channels.use() as channel:
                async for body in channel.stream(
                    asked, timeout=call.timeout_ms / 1000, metadata=metadata
                ):
                    size += len(body) + MESSAGE_BYTES
                    _require_end(size)
                    if text := await off_loop(len(body), _take_in, body, messages, held):
                        on_text(text)
        except ProviderError as error:
            if messages:
                secrets = self._secrets()
                error.answer = await off_loop(size, read_draft, call, messages, secrets)
            raise  # it was paid for
        if text := held.end():
            on_text(text)
        return await off_loop(size, read_generated, call, messages, self._secrets())

    def _secrets(self) -> list[str]:
        return [] if self._token is None else self._token.secrets()

    async def _bearer(self) -> Headers:
        return () if self._token is None else await self._token.headers()

    def _shape(self, params: Mapping[str, Any]) -> Shape:
        """Return what the calls with these parameters have in common, made once."""
        # By identity, because it is asked at every call; what is kept can't lose its id.
        known = self._shapes.get(id(params))
        if known is not None:
            return known[1]
        try:
            made = shape(self._model, self._resource, params)
        except ValueError as error:
            # True for every request of this prompt: the run stops, and none of them is failed.
            reason = f"the parameters can't be sent: {error}"
            raise ProviderError(Outcome.DENIED, reason, kind=Kind.SETUP) from error
        self._shapes[id(params)] = params, made
        return made

    @contextmanager
    def _refusals(self, bearer: Headers) -> Iterator[None]:
        """Raise what an error of gRPC says of the attempt in its place."""
        try:
            yield
            if self._token is not None:
                self._token.accepted()
        except grpc.aio.AioRpcError as error:
            told = refused(error, self._secrets())
            if self._emulator is not None and told.outcome is Outcome.UNAVAILABLE:
                told.reason = _no_emulator(self._emulator, told.reason)
            if is_never_processed(error):
                told = self._unprocessed(told)
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and self._is_worth_a_token(bearer):
                told.outcome = Outcome.INTERRUPTED
                told.reason = f"a new token is fetched: {told.reason}"[:REASON_LENGTH]
            raise told from None  # its traceback is 40 frames of a library

    def _unprocessed(self, told: ProviderError) -> ProviderError:
        """Return what becomes of a call with which the server did nothing: no word pays for it."""
        is_away, code = self._channels.is_refused, told.status_code
        if is_away:
            return ProviderError(Outcome.UNAVAILABLE, told.reason, status_code=code, kind=told.kind)
        return ProviderError(
            Outcome.INTERRUPTED,
            told.reason,
            status_code=code,
            retry_after_ms=0,
            kind=told.kind,
        )

    def _is_worth_a_token(self, bearer: Headers) -> bool:
        return self._token is not None and self._token.drop(bearer)


def _no_emulator(address: str, reason: str) -> str:
    asked = f"is the emulator running? Nobody answers at {address}, as VERTEX_EMULATOR_HOST has it"
    return f"{asked} ({reason})"[:REASON_LENGTH]


def _request(made: Shape, call: Call) -> Any:
    try:
        return request(made, call)
    except ValueError as error:
        # It will never do, however often it is tried.
        raise ProviderError(Outcome.REJECTED, f"the prompt can't be sent: {error}") from error


def _require_end(size: int) -> None:
    """Refuse an answer that would go on for ever."""
    if size > LARGEST_ANSWER:
        reason = f"the answer is longer than {LARGEST_ANSWER >> 20} MiB"
        raise ProviderError(Outcome.REJECTED, reason, kind=Kind.WORD)


def _answer(call: Call, made: Shape, body: bytes | None, secrets: Sequence[str]) -> Answer:
    if made.method == PREDICT:
        return read_predicted(call, message_in(body, PredictResponse), made.text_at, secrets)
    return read_generated(call, (message_in(body),), secrets)


def _take_in(body: bytes, messages: list[Any], held: HeldBack) -> str:
    """Put one more message of an answer to the others; return what can be told of its text."""
    message = message_in(body)
    messages.append(message)
    return held.read(text_of(message))
