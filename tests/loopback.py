"""An OpenAI-compatible server on loopback, in a thread of the tests: the second witness.

No two answers are alike, so that it shows whether one that is stored was given, and by which call.
"""

import asyncio
import socket
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from contextlib import contextmanager

from aiohttp import web


class Witness:
    """What the server has seen: a word for every request that arrived, and when."""

    def __init__(self):
        self.words: Counter[str] = Counter()
        self.answers: defaultdict[str, set[str]] = defaultdict(set)
        self.arrived_at_s: list[float] = []
        self.most_open = 0
        self.url = ""
        self.asked = threading.Event()
        self._open: dict[int, web.Request] = {}

    def most_within(self, window_s):
        """Return the most arrivals within any window of that length."""
        times = self.arrived_at_s
        return max(
            (n - bisect_left(times, at_s - window_s) for n, at_s in enumerate(times, 1)),
            default=0,
        )

    @contextmanager
    def seeing(self, request, word):
        """Take down a request, for as long as somebody waits for its answer."""
        self.words[word] += 1
        self.arrived_at_s.append(time.monotonic())
        self._open = {n: other for n, other in self._open.items() if somebody_waits(other)}
        self._open[id(request)] = request
        self.most_open = max(self.most_open, len(self._open))
        self.asked.set()
        try:
            yield
        finally:
            self._open.pop(id(request), None)


def somebody_waits(request):
    """Tell whether who has asked is still there: the system knows before we are told."""
    peer = request.transport and request.transport.get_extra_info("socket")
    if peer is None or peer.fileno() < 0:
        return False
    same = socket.socket(fileno=peer.fileno())
    try:
        return same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        same.detach()


@contextmanager
def serving(latency_s=0.02, more=""):
    """Serve until the end of the block.

    Each answer takes ``latency_s``, a number or a function that draws one, and ends with ``more``.
    """
    witness = Witness()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    draw_s = latency_s if callable(latency_s) else lambda: latency_s

    async def answer(request):
        word = (await request.json())["messages"][-1]["content"].split()[-1]
        with witness.seeing(request, word):
            text = f"{word} is a word ({len(witness.arrived_at_s)}).{more}"
            witness.answers[word].add(text)
            await asyncio.sleep(draw_s())
        return web.json_response(
            {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}}
        )

    async def serve():
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        # Who has hung up waits no longer: a call of a dead process is not in flight.
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        witness.url = f"http://127.0.0.1:{port}/v1"
        return runner

    def run():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield witness
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
