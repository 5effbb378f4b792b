"""One side of vertex.py: does its work and prints, as JSON, what that has cost.

    python scripts/benchmarks/vertex_side.py SIDE WORDS.txt DATABASE

SIDE is `crawler`, `call path` or `bare loop`. Counted is what comes after the imports.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio

from crawler.cli import main as program
from crawler.cli.crawl import crawl
from crawler.protocol import Call
from crawler.providers.vertex.channels import OPTIONS
from crawler.providers.vertex.messages import GENERATE, GenerateContentRequest
from crawler.providers.vertex.service import connect

CONCURRENCY = 200
CONNECTIONS = 4
MODEL = "gemini-2.5-flash"
TIMEOUT_MS = 120_000


async def through_provider(words: Iterator[str]) -> None:
    """Make the calls of a crawl, and nothing else."""
    params: dict[str, object] = {}

    async def work() -> None:
        for word in words:
            call = Call(1, 1, word, "vertex", MODEL, word, "", params, TIMEOUT_MS)
            assert (await provider.generate(call)).text

    async with connect(MODEL) as provider:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def bare(words: Iterator[str]) -> None:
    """Send bytes that differ in the word alone, and look at no answer."""
    target = os.environ["VERTEX_EMULATOR_HOST"]
    channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(CONNECTIONS)]
    calls = [channel.unary_unary(GENERATE) for channel in channels]

    async def work(number: int) -> None:
        send = calls[number % CONNECTIONS]
        for word in words:
            assert await send(message_about(word), timeout=TIMEOUT_MS / 1000)

    await asyncio.gather(*(work(number) for number in range(CONCURRENCY)))
    for channel in channels:
        await channel.close()


def message_about(word: str) -> bytes:
    """Return the bytes of a request, all words being as long as the sample."""
    return BEFORE + word.encode() + AFTER


def _sample(word: str) -> tuple[bytes, bytes]:
    message = GenerateContentRequest(model=f"projects/p/locations/l/publishers/google/{MODEL}")
    content = message.contents.add()
    content.role = "user"
    content.parts.add().text = word
    before, after = message.SerializeToString().split(word.encode())
    return before, after


BEFORE, AFTER = _sample("word0000000")


def main() -> None:
    """Do one side's work."""
    side, path, database = sys.argv[1:]
    words = iter(Path(path).read_text("utf-8").split())
    assert callable(crawl)  # imported, as the program will find it
    gc.freeze()  # as the program does: a bare loop would not have the heap of a large library
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    if side == "crawler":
        sys.argv = ["crawler", "--db", database, "run"]
        try:
            program()
        except SystemExit as end:
            if end.code != 0:
                raise
    else:
        asyncio.run(through_provider(words) if side == "call path" else bare(words))
    cost = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
