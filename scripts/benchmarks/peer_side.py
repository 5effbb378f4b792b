"""One peer asks about a list of words; peers.py runs it in the peer's own environment.

    python scripts/benchmarks/peer_side.py PEER ADDRESS WORDS.txt WORKERS ANSWERS.jsonl

Rule: each peer as its documentation has it; it fails unless every word is answered.
"""

import asyncio
import sys
from pathlib import Path

KEY = "a-key-for-nobody"


def message(word: str) -> list[dict[str, str]]:
    """Return what is asked about a word."""
    return [{"role": "user", "content": word}]


async def with_flexllm(address: str, words: list[str], workers: int, output: str) -> int:
    """Ask with flexllm's batch, which writes what came to a file; return how many were answered."""
    from flexllm import LLMClient  # noqa: PLC0415 - only in its own environment

    client = LLMClient(
        "openai", base_url=address, api_key=KEY, model="m", concurrency_limit=workers
    )
    asked = [message(word) for word in words]
    answers = await client.chat_completions_batch(asked, output_jsonl=output, show_progress=False)
    return sum(bool(answer) for answer in answers)


async def with_openai(address: str, words: list[str], workers: int, output: str) -> int:
    """Ask with the SDK alone, which stores nothing; return how many were answered."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - only in its own environment

    del output
    left = iter(words)
    async with AsyncOpenAI(base_url=address, api_key=KEY) as client:

        async def work() -> int:
            answered = 0
            for word in left:
                reply = await client.chat.completions.create(model="m", messages=message(word))
                answered += bool(reply.choices[0].message.content)
            return answered

        return sum(await asyncio.gather(*(work() for _ in range(workers))))


def main() -> None:
    """Ask about every word."""
    peer, address, path, workers, output = sys.argv[1:]
    words = Path(path).read_text("utf-8").split()
    ask = {"flexllm": with_flexllm, "openai": with_openai}[peer]
    answered = asyncio.run(ask(address, words, int(workers), output))
    if answered != len(words):
        raise SystemExit(f"{peer} has answered {answered} of {len(words)} words")


if __name__ == "__main__":
    # The folder of this file has an openai.py of ours, which is not meant here.
    sys.path.pop(0)
    main()
