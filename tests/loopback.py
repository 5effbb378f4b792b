"""An OpenAI-compatible server on loopback, in a thread of the tests: the second witness."""

import asyncio
import threading
import time
from collections import Counter
from contextlib import contextmanager

from aiohttp import web


class Witness:
    """What the server has seen: a word for every request that arrived, and when."""

    def __init__(self):
        self.words: Counter[str] = Counter()
        self.arrived_at_s: list[float] = []
        self.url = ""
        self.asked = threading.Event()


@contextmanager
def serving(latency_s=0.02):
    """Serve until the end of the block."""
    witness = Witness()
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def answer(request):
        body = await request.json()
        word = body["messages"][-1]["content"].split()[-1]
        witness.words[word] += 1
        witness.arrived_at_s.append(time.monotonic())
        witness.asked.set()
        await asyncio.sleep(latency_s)
        message = {"content": f"{word} is a word."}
        return web.json_response(
            {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}}
        )

    async def serve():
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
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
