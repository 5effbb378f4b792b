"""The least that any client of the server has to do: the yardstick of openai.py.

    python scripts/benchmarks/bare_client.py ADDRESS WORDS.txt WORKERS

A number of workers read the same words, post the same bodies through a session with the same
settings and read the JSON of the answers. Nothing is stored, retried or limited.
"""

import asyncio
import json
import sys
from collections.abc import Iterator

import aiohttp


async def work(http: aiohttp.ClientSession, url: str, words: Iterator[str]) -> int:
    """Ask about words until there are none left; return the characters of the answers."""
    characters = 0
    for word in words:
        body = {"model": "m", "messages": [{"role": "user", "content": word}]}
        async with http.post(url, json=body, allow_redirects=False) as response:
            assert response.status == 200
            answer = json.loads(await response.read())
        characters += len(answer["choices"][0]["message"]["content"])
    return characters


async def ask(address: str, path: str, workers: int) -> None:
    """Ask about every word of a list."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": "Bearer a-key-for-nobody"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=20),
    ) as http:
        with open(path, encoding="utf-8") as lines:  # noqa: PTH123 - one import less
            words = map(str.strip, lines)
            url = f"{address}/chat/completions"
            counts = await asyncio.gather(*(work(http, url, words) for _ in range(workers)))
    print(sum(counts))


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[1], sys.argv[2], int(sys.argv[3])))
