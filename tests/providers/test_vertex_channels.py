"""One connection for each 50 calls in flight, seen from the server's side."""

import asyncio
from collections import Counter

import grpc
import grpc.aio

from crawler.protocol import Call
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.channels import CALLS_PER_CHANNEL, opened
from crawler.providers.vertex.messages import (
    GENERATE,
    GenerateContentRequest,
    GenerateContentResponse,
)
from crawler.providers.vertex.service import Service

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
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            target = f"127.0.0.1:{port}"
            async with opened(target, encrypted=False) as channels:
                service = Service("m", Access(target, "m", None), channels, None)
                answers = await asyncio.gather(*(service.generate(CALL) for _ in range(calls)))
                assert {answer.text for answer in answers} == {"so it is"}
                assert sorted(handler.peers.values()) == [20, 50, 50]
                for _ in range(5):
                    await service.generate(CALL)
                assert len(handler.peers) == 3, "those that are there are used again"
        finally:
            await server.stop(None)

    asyncio.run(main())
