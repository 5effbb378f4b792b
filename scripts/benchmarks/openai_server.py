"""A loopback server that speaks as OpenAI's chat completions do, and keeps exact counts.

    python scripts/benchmarks/openai_server.py --latency-ms 100,200 --per-minute 600

It prints its address (for OPENAI_BASE_URL) on the first line and lives until its standard input is
closed. POST /v1/chat/completions answers with 500 characters after the latency. With --per-minute,
what would be one more than that many accepted calls within 60 s is refused with 429 and
Retry-After. GET /stats gives the counts as JSON; times are seconds of the system's monotonic clock:

    requests           calls that arrived, refused ones included
    refused            those of them answered with 429
    most_in_60_s       the most arrivals within any 60 s, refused ones included
    asked_again        the words (last messages) that arrived more than once
    first_at, last_at  the first and the last arrival; null where there was none
"""

import argparse
import asyncio
import json
import math
import os
import random
import threading
import time
from bisect import bisect_left
from collections import Counter

from aiohttp import web

WINDOW_NS = 60 * 10**9
SENTENCE = "Each of these answers says the same, at no cost, and about as much as a real one. "
TEXT = (SENTENCE * 7)[:499] + "."


class Server:
    """Answers, and counts."""

    def __init__(self, low_ms: float, high_ms: float, per_minute: int | None, seed: int) -> None:
        self._latency_s = low_ms / 1000, high_ms / 1000
        self._per_minute = per_minute
        self._chance = random.Random(seed)
        self._arrivals: list[int] = []
        self._accepted: list[int] = []
        self._words: Counter[str] = Counter()
        self._answer = json.dumps(
            {
                "id": "chatcmpl-0",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": TEXT},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 12, "completion_tokens": 100, "total_tokens": 112},
            }
        ).encode()

    async def complete(self, request: web.Request) -> web.Response:
        """Answer a call, or refuse it."""
        now_ns = time.monotonic_ns()
        self._arrivals.append(now_ns)
        wait_ns = self._wait_ns(now_ns)
        if wait_ns <= 0:
            self._accepted.append(now_ns)
        self._words[json.loads(await request.read())["messages"][-1]["content"]] += 1
        if wait_ns > 0:
            return web.json_response(
                {"error": {"message": "too many requests", "type": "requests"}},
                status=429,
                headers={"Retry-After": str(math.ceil(wait_ns / 1e9))},
            )
        await asyncio.sleep(self._chance.uniform(*self._latency_s))
        return web.Response(body=self._answer, content_type="application/json")

    async def stats(self, request: web.Request) -> web.Response:
        """Tell what has been counted."""
        del request
        return web.json_response(
            {
                "requests": len(self._arrivals),
                "refused": len(self._arrivals) - len(self._accepted),
                "most_in_60_s": most_in_window(self._arrivals),
                "asked_again": [word for word, times in self._words.items() if times > 1],
                "first_at": self._arrivals[0] / 1e9 if self._arrivals else None,
                "last_at": self._arrivals[-1] / 1e9 if self._arrivals else None,
            }
        )

    def _wait_ns(self, now_ns: int) -> int:
        """Return how long until a call may be accepted; 0 if it may be now."""
        if self._per_minute is None or len(self._accepted) < self._per_minute:
            return 0
        # A call of exactly 60 s ago still counts: the strictest reading of "within 60 s".
        return max(0, self._accepted[-self._per_minute] + WINDOW_NS + 1 - now_ns)


def most_in_window(arrivals: list[int]) -> int:
    """Return the most arrivals within any 60 s, both ends included."""
    return max(
        (
            number - bisect_left(arrivals, at_ns - WINDOW_NS)
            for number, at_ns in enumerate(arrivals, 1)
        ),
        default=0,
    )


def closed_input(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that is set when standard input is closed."""
    closed = asyncio.Event()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=wait, daemon=True).start()
    return closed


async def serve(server: Server, port: int) -> None:
    """Serve until standard input is closed."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_get("/stats", server.stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024, shutdown_timeout=0.1)
    await site.start()
    _, port = runner.addresses[0][:2]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    try:
        await closed_input(asyncio.get_running_loop()).wait()
    finally:
        await runner.cleanup()


def main(argv: list[str] | None = None) -> None:
    """Read the options and serve."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--latency-ms", default="5", metavar="LOW[,HIGH]")
    options.add_argument("--per-minute", type=int, metavar="N", help="calls within 60 s [any]")
    options.add_argument("--seed", type=int, default=0, help="of the latencies")
    options.add_argument("--port", type=int, default=0, help="[a free one]")
    args = options.parse_args(argv)
    low, _, high = args.latency_ms.partition(",")
    server = Server(float(low), float(high or low), args.per_minute, args.seed)
    asyncio.run(serve(server, args.port))


if __name__ == "__main__":
    main()
