"""Servers as they are: a good answer follows each oddity, and no word is asked more than needed."""

import json
import os
import queue
import random
import signal
from collections import Counter

import pytest

from crawler.errors import Exit
from tests.answering import RESET, answering, chat
from tests.conftest import LONG
from tests.crawls import Crawl


def changed(body, **fields):
    """Return an answer whose choice has other fields."""
    (choice,) = body["choices"]
    return {**body, "choices": [{**choice, **fields}]}


def streamed(text):
    events = [
        {"choices": [{"delta": {"content": piece}, "finish_reason": end}]}
        for piece, end in ((text[:4], None), (text[4:], "stop"))
    ]
    told = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return 200, told.encode(), {"Content-Type": "text/event-stream"}


def message(**fields):
    return changed(chat(), message=fields)


READ = {
    "plain": chat,
    "201": lambda text: (201, chat(text)),
    "an end that is null": lambda text: chat(text, None),
    "an end of another house": lambda text: chat(text, "end_turn"),
    "thoughts in tags": lambda text: chat(f"<think>let me\nthink</think>{text}"),
    "thoughts without their opening": lambda text: chat(f"hm</think>{text}"),
    "thoughts apart": lambda text: message(content=text, reasoning_content="hm"),
    "parts": lambda text: message(
        content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
    ),
    "a stream unasked": streamed,
    "text in place of a message": lambda text: changed(chat(), message=None, text=text),
    "a delta": lambda text: changed(chat(), message=None, delta={"content": text}),
    "usage in strings": lambda text: chat(text, prompt_tokens="5", completion_tokens="many"),
    "usage that is absurd": lambda text: chat(text, prompt_tokens=2**70, completion_tokens=-3),
    "blank lines before": lambda text: (200, b"\n \n" + json.dumps(chat(text)).encode()),
    "a byte order mark": lambda text: (200, b"\xef\xbb\xbf" + json.dumps(chat(text)).encode()),
    "two JSON values": lambda text: (200, b"{}\n" + json.dumps(chat(text)).encode()),
}
"""Odd, and read all the same: one call."""


def refused(status, said, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda text: (status, {"error": {"message": said}}, named)


ASKED_AGAIN = {
    "half": lambda text: chat(text[:3], "abort"),
    "half, of an error": lambda text: chat(text[:3], "error"),
    "empty": lambda text: chat(""),
    "no choices": lambda text: {**chat(), "choices": []},
    "only thoughts": lambda text: message(content=None, reasoning_content="hm"),
    "an unknown end": lambda text: chat(text[:3], "tired"),
    "202": lambda text: (202, {"status": "queued"}),
    "an error in a 200": lambda text: {
        "error": {"message": "Provider returned error", "code": 502}
    },
    "429": refused(429, "slow down", Retry_After="0.02"),
    "429 in ms": refused(429, "slow down", retry_after_ms="20"),
    "429 in words": refused(429, "Rate limit reached. Please try again in 20ms."),
    "503": refused(503, "capacity or connection trouble, try again"),
    "a web page": lambda text: (502, b"<html><title>502 Bad Gateway</title></html>"),
    "a reset": lambda text: RESET,
    "cut off": lambda text: (200, b'{"choices": [', {"Content-Length": "500"}),
}
"""No answer, and none of the word's fault: one more call."""


KINDS = len(READ | ASKED_AGAIN)
WORDS = KINDS * (10 if LONG else 4)


class Odd:
    """A server that mixes all of them at random."""

    def __init__(self):
        kinds = (WORDS // KINDS) * [*READ, *ASKED_AGAIN]
        random.Random(22).shuffle(kinds)
        self.kinds = {f"word{n}": kind for n, kind in enumerate(kinds)}
        self.asked = Counter()
        self.quarters = queue.Queue()  # another quarter of the list has been asked

    def reply(self, body):
        word = body["messages"][-1]["content"].split()[-1]
        self.asked[word] += 1
        kind = self.kinds[word] if self.asked[word] == 1 else "plain"
        if self.asked.total() % (WORDS // 4) == 0:
            self.quarters.put(word)
        return (READ | ASKED_AGAIN)[kind](f"{word} is fine")

    def needs(self, word):
        return 2 if self.kinds[word] in ASKED_AGAIN else 1


@pytest.mark.parametrize("kills", [0, 3])
def test_each_word_is_answered_and_asked_no_more_than_its_oddity_needs(tmp_path, forks, kills):
    odd = Odd()
    with answering(odd.reply) as server, Crawl(tmp_path, server.url, odd.kinds, forks) as crawl:
        crawl.call("limit", "openai", "--fixed")
        for _ in range(kills):
            run = crawl.fork()
            odd.quarters.get(timeout=60)
            os.killpg(run.pid, signal.SIGKILL)
            assert run.wait(30) == -signal.SIGKILL
        assert crawl.fork().wait(120) == Exit.DONE
        assert crawl.assert_sound() == WORDS
        answers = dict(crawl.ask("SELECT word, text FROM results"))
        again = Counter(
            word
            for (word,) in crawl.ask(
                "SELECT text FROM attempts JOIN requests ON requests.id = request_id"
                " JOIN words ON words.id = word_id WHERE outcome = 'abandoned'"
            )
        )
    assert answers == {word: f"{word} is fine" for word in odd.kinds}
    assert bool(again) == bool(kills)
    for word, asked in odd.asked.items():
        assert odd.needs(word) <= asked + again[word]
        assert asked <= odd.needs(word) + again[word], (word, odd.kinds[word])
