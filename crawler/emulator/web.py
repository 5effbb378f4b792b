"""The emulator over HTTP: the paths of Google's REST and of OpenAI's, in one server.

Rule: as in `crawler.emulator.server`: it carries out what is decided, and nothing else.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
from google.protobuf import json_format

from crawler.emulator import chat, rest
from crawler.emulator.decision import SILENT, Call, Desk
from crawler.emulator.dialect import Dialect
from crawler.emulator.http_server import Reply, Request
from crawler.emulator.refusals import Status
from crawler.emulator.tally import Tally

PAUSES_PER_LATENCY = 10
"""A stream pauses between its chunks for this part of the latency."""

_GOOGLE = re.compile(r"/(?:models|endpoints)/([^/:]+):(\w+)$")
_NO_PAGE = Status(grpc.StatusCode.NOT_FOUND, "The emulator has no such page.")
_EVENTS = {"content-type": "text/event-stream"}


class Web:
    """Answers requests over HTTP, as the desk decides that decides about those over gRPC."""

    def __init__(
        self, desk: Desk, tally: Tally, clock: Callable[[], int], models: Sequence[str]
    ) -> None:
        self._desk, self._tally, self._clock, self._models = desk, tally, clock, models

    async def reply(self, request: Request) -> Reply | None:
        """Answer a request; None where its connection is to break."""
        if request.path.endswith("/models") and request.method == "GET":
            return chat.listed(self._models)
        is_chat = request.path.endswith("/chat/completions")
        try:
            read = self._read_chat(request) if is_chat else _read_google(request)
        except (
            json_format.ParseError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            status = Status(grpc.StatusCode.INVALID_ARGUMENT, f"The request can't be read: {error}")
            return chat.refuse(status) if is_chat else rest.refuse(status)
        if isinstance(read, Reply):
            return read
        said = await self._carried_out(read)
        if not is_chat or said is None:
            return said
        told = chat.headers_of(self._desk.rooms(self._clock()))
        return said._replace(headers={**said.headers, **told})

    def _read_chat(self, request: Request) -> Dialect | Reply:
        read = chat.chatting(request.body)
        return read if read.asked.model in self._models else chat.missing(read.asked.model)

    async def _carried_out(self, read: Dialect) -> Reply | None:
        """Decide about a request, and reply when its time has come."""
        call = self._desk.decide(read.method, read.asked, self._clock())
        if not call.is_let_in:
            return _refused(read, call)
        with self._tally.carrying_out():
            await asyncio.sleep(call.fate.latency_ms / 1000)
            if call.fate.fault == "reset":
                return None
            if call.fate.fault in SILENT:
                await asyncio.get_running_loop().create_future()  # until the client is gone
            if call.status is not None:
                return _refused(read, call)
        self._tally.answered[call.word] += 1
        if read.events is None or call.answers[0].blocked:
            return read.whole(call.answers)
        return Reply(200, _paced(read.events(call.answers[0]), call), _EVENTS)


def _read_google(request: Request) -> Dialect | Reply:
    found = _GOOGLE.search(request.path)
    if found is None:
        return rest.refuse(_NO_PAGE)
    match found[2]:
        case "generateContent":
            return rest.generating(found[1], request.body, stream=False)
        case "streamGenerateContent":
            return rest.generating(found[1], request.body, stream=True)
        case "predict":
            return rest.predicting(found[1], request.body)
        case "countTokens":
            return rest.counted(request.body)
        case _:
            return rest.refuse(_NO_PAGE)


def _refused(read: Dialect, call: Call) -> Reply:
    assert call.status is not None
    said = read.refuse(call.status, call.why)
    if call.wait_ms is None:
        return said
    told = {"retry-after": str(-(-call.wait_ms // 1000)), "retry-after-ms": str(call.wait_ms)}
    return said._replace(headers={**said.headers, **told})


async def _paced(events: Sequence[bytes], call: Call) -> AsyncIterator[bytes]:
    for number, event in enumerate(events):
        if number:
            await asyncio.sleep(call.fate.latency_ms / 1000 / PAUSES_PER_LATENCY)
        yield event
