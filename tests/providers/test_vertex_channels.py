"""One connection for each 50 calls in flight, seen from the server's side."""

import asyncio
from collections import Counter

import grpc

from crawler.protocol import Call, ProviderError
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.channels import CALLS_PER_CHANNEL, opened
from crawler.providers.vertex.messages import (
    GENERATE,
    GenerateContentRequest,
    GenerateContentResponse,
)
from crawler.providers.vertex.service import Service
from tests.providers.grpc_server import grpc_serving
from tests.providers.test_vertex_refusal import (
    DATA,
    GRPC,
    RST_STREAM,
    frame,
    headers,
    http2_server_that,
)

CALL = Call(1, 1, "w", "vertex", "m", "About w.", "", {}, 10_000)


class Server(grpc.GenericRpcHandler):
    """Answers nobody until there are as many calls as are waited for; counts who is on what."""

    def __init__(self, wanted):
        self.peers = Counter()
        self._wanted = wanted
        self._all_there = asyncio.Event()

    def service(self, details):
        assert details.method == GENERATE
        return grpc.unary_unary_rpc_method_handler(
            self._answer,
            request_deserializer=GenerateContentRequest.FromString,
            response_serializer=GenerateContentResponse.SerializeToString,
        )

    async def _answer(self, request, context):
        self.peers[context.peer()] += 1
        if self.peers.total() >= self._wanted:
            self._all_there.set()
        await self._all_there.wait()
        answer = GenerateContentResponse()
        candidate = answer.candidates.add(finish_reason=1)
        candidate.content.parts.add().text = "so it is"
        return answer


def test_calls_are_spread_over_as_many_connections_as_they_need():
    async def main():
        calls = 2 * CALLS_PER_CHANNEL + 20
        handler = Server(calls)
        async with grpc_serving(handler) as port:
            target = f"127.0.0.1:{port}"
            async with opened(target, encrypted=False) as channels:
                service = Service("m", Access(target, "m", None), channels, None)
                answers = await asyncio.gather(*(service.generate(CALL) for _ in range(calls)))
                assert {answer.text for answer in answers} == {"so it is"}
                assert sorted(handler.peers.values()) == [20, 50, 50]
                for _ in range(5):
                    await service.generate(CALL)
                assert len(handler.peers) == 3, "those that are there are used again"

    asyncio.run(main())


def test_the_number_of_streams_that_a_connection_carries_is_learned():
    """A front end takes ten, and refuses those beyond: hardly more than once each."""
    most, tried, refused = 10, 0, frame(RST_STREAM, 0, 0, (7).to_bytes(4, "big"))
    answer = GenerateContentResponse()
    answer.candidates.add(finish_reason=1).content.parts.add().text = "so it is"
    body = answer.SerializeToString()
    message = b"\x00" + len(body).to_bytes(4, "big") + body
    held = {}

    def act(writer, stream):
        nonlocal tried
        tried += 1
        if len(held.setdefault(writer, [])) == most:
            writer.write(frame(RST_STREAM, 0, stream, refused[9:]))
            return
        held[writer].append(stream)
        asyncio.get_running_loop().call_later(0.05, finish, writer, stream)

    def finish(writer, stream):
        held[writer].remove(stream)
        trailers = headers(stream, ("grpc-status", "0"), end=True)
        writer.write(headers(stream, *GRPC) + frame(DATA, 0, stream, message) + trailers)

    async def until_answered(service):
        while True:
            try:
                return await service.generate(CALL)
            except ProviderError as error:
                if error.outcome != "interrupted":
                    raise

    async def main():
        nonlocal tried
        async with http2_server_that(act) as seen, opened(seen.target, encrypted=False) as channels:
            service = Service("m", Access(seen.target, "m", None), channels, None)
            for allowed in (2 * 40, 40, 40):
                tried = 0
                await asyncio.gather(*(until_answered(service) for _ in range(40)))
                assert 40 <= tried <= allowed

    asyncio.run(asyncio.wait_for(main(), 20))
