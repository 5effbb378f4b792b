"""Crawls of a server that says, word for word, what users of real ones have reported: what is
stored, how often each word is asked, and with which code a run ends."""

import json
from collections import Counter

import pytest

from crawler.errors import Exit
from tests.answering import answering, chat
from tests.program import crawler, rows, told

GOOD = "A good answer about the word."
HALF = "The word means that a"
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["noun", "verb"]},
        "letters": {"type": "integer", "maximum": 9},
    },
    "required": ["kind"],
}
NOUN = '{"kind": "noun", "letters": 3}'


def message(finish_reason="stop", **fields):
    """Return the body of an answer with these fields of a message."""
    return {"choices": [{"index": 0, "message": fields, "finish_reason": finish_reason}]}


def piece(text="", finish_reason=None):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


def events(*values):
    said = [json.dumps(value) for value in values] + ["[DONE]"]
    return "".join(f"data: {one}\n\n" for one in said).encode()


def error(text, **fields):
    return {"error": {"message": text, **fields}}


# What a server says at once, and always: a good answer in some form.
GOOD_FORMS = {
    "plain": chat(GOOD),
    "created": (201, chat(GOOD)),
    "no-reason": chat(GOOD, finish_reason=None),
    "eos": chat(GOOD, finish_reason="eos_token"),
    "parts": chat([{"type": "thinking", "thinking": [{"text": "hm"}]}, {"text": GOOD}]),
    "object": chat({"type": "text", "text": GOOD}),
    "delta": {"choices": [{"delta": {"content": GOOD}, "finish_reason": "stop"}]},
    "text": {"choices": [{"text": GOOD, "finish_reason": "stop"}]},
    "events": (200, events(piece(GOOD[:9]), piece(GOOD[9:]), piece("", "stop"))),
    "two-values": (200, json.dumps(chat(GOOD)).encode() + b'\n{"usage": {}}'),
    "mark": (200, b"\xef\xbb\xbf" + json.dumps(chat(GOOD)).encode()),
    "blanks": (200, b"\n \n\n" + json.dumps(chat(GOOD)).encode()),
    "think": chat(f"<think>hm</think>\n{GOOD}"),
    "half-think": chat(f"hm, so\n</think>\n\n{GOOD}"),
    "channels": chat(
        f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}"
    ),
    "reasoning": message(content=GOOD, reasoning_content="hm"),
    "no-error": {**chat(GOOD), "error": None},
    "usage-list": {**chat(GOOD), "usage": []},
    "usage-text": chat(GOOD, prompt_tokens="5", completion_tokens="many"),
    "usage-huge": chat(GOOD, prompt_tokens=2**70, completion_tokens=-3),
    "model-list": chat(GOOD, model=["a", "b"]),
    "header": (200, chat(GOOD), {"X-Big": "a" * 20_000}),
}
# What it says the first time; the second answer is a good one.
GOOD_AGAIN = {
    "once-error-502": error("Provider returned error", code=502),
    "once-choice": {"choices": [{"finish_reason": "error", "error": {"code": 502}}]},
    "once-choices": {"choices": []},
    "once-nothing": (200, b""),
    "once-202": (202, {"status": "queued"}),
    "once-page": (502, b"<html><head><title>502 Bad Gateway</title></head></html>"),
    "once-409": (409, error("The resource was updated by another request")),
    "once-520": (520, error("connection trouble, try again")),
    "once-cut": (200, b'{"choices": [', {"Content-Length": "500"}),
    "once-401": (401, error("invalid token")),
    "once-tool": message("tool_calls", content=None, tool_calls=[{"id": "1"}]),
}
# What it always says, with the outcome of the last attempt and how often it is asked.
NEVER_GOOD = {
    "half": (chat(HALF, finish_reason="abort"), "no_answer", 5),
    "half-think-only": (chat("<think>hm"), "no_answer", 5),
    "thoughts": (message(content=None, reasoning_content="let me think"), "no_answer", 5),
    "thought-parts": (chat([{"type": "thinking", "thinking": "hm"}]), "no_answer", 5),
    "empty": (chat(""), "no_answer", 5),
    "odd": (chat(HALF, finish_reason="no_such_end"), "no_answer", 3),
    "odd-object": (chat(HALF, finish_reason={"reason": "stop"}), "no_answer", 3),
    "tool": (message("tool_calls", content=None), "no_answer", 3),
    "recited": (chat("", finish_reason="content_filter: RECITATION"), "blocked", 3),
    "cut-off": (chat(HALF, finish_reason="length"), "no_answer", 3),
    "filtered": (chat("", finish_reason="content_filter"), "blocked", 1),
    "refused": (message(content=None, refusal="I can't help with that."), "blocked", 1),
    "flagged": ((403, error("requires moderation and your input was flagged")), "blocked", 1),
    "too-long": ((400, error("This model's maximum context length is 4096")), "rejected", 1),
    "large": ((413, error("Request body too large")), "rejected", 1),
}
GOOD_JSON = {
    "json": chat(NOUN),
    "fence": chat(f"```json\n{NOUN}\n```"),
    "think-json": chat(f"<think>{{}}</think>{NOUN}"),
    "think-fence": chat(f"<think>hm</think>\n\n```\n{NOUN}\n```\n"),
}
BAD_JSON = {
    "enum": chat('{"kind": "bird"}'),
    "maximum": chat('{"kind": "noun", "letters": 10}'),
    "type": chat('{"kind": "noun", "letters": "3"}'),
    "lacks": chat('{"letters": 3}'),
    "list": chat("[]"),
    "prose": chat(f"Here it is: {NOUN} I hope that helps."),
    "broken": chat(NOUN[:-1]),
}


class Crawl:
    """A file of its own, and the words that its server was asked about."""

    def __init__(self, server):
        self._server = server

    def __call__(self, *args, code=Exit.DONE):
        ran = crawler(*args)
        assert ran.code == code, ran
        return ran

    def prepare(self, words, *params):
        spec = ("--template", "{word}", "--provider", "openai", "--model", "m")
        self("prompt", "add", "p", *spec, *params)
        self("add", *words, "--prompt", "p")

    def asked(self):
        return Counter(body["messages"][-1]["content"] for body in self._server.asked)

    def calls(self):
        return len(self._server.asked)

    def states(self):
        return dict(rows("crawl.db", "SELECT state, count(*) FROM requests GROUP BY state"))


@pytest.fixture
def crawl_of(tmp_path, monkeypatch):
    """Return a function that starts a server, and has the program crawl it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    entered = []

    def made(reply):
        server = answering(lambda body: reply(body["messages"][-1]["content"]))
        entered.append(server)
        opened = server.__enter__()
        monkeypatch.setenv("OPENAI_BASE_URL", opened.url)
        return Crawl(opened)

    yield made
    for server in entered:
        server.__exit__(None, None, None)


def test_a_good_answer_is_stored_in_every_form_and_what_is_none_is_asked_for_a_few_times(crawl_of):
    asked = Counter()

    def reply(word):
        asked[word] += 1
        if word in GOOD_AGAIN and asked[word] == 1:
            return GOOD_AGAIN[word]
        return NEVER_GOOD[word][0] if word in NEVER_GOOD else GOOD_FORMS.get(word, chat(GOOD))

    crawl = crawl_of(reply)
    mixed = list(GOOD_FORMS)  # so that what fails stands between what does not
    for n, word in enumerate([*GOOD_AGAIN, *NEVER_GOOD]):
        mixed.insert(2 * n + 1, word)
    crawl.prepare(mixed)
    crawl("run", "--concurrency", "2", code=Exit.SOME_FAILED)

    good = dict(rows("crawl.db", "SELECT word, text FROM results"))
    assert good == dict.fromkeys([*GOOD_FORMS, *GOOD_AGAIN], GOOD)
    expected = {word: times for word, (_, _, times) in NEVER_GOOD.items()}
    assert crawl.asked() == {
        **dict.fromkeys(GOOD_FORMS, 1),
        **dict.fromkeys(GOOD_AGAIN, 2),
        **expected,
    }
    failed = dict(rows("crawl.db", "SELECT word, outcome FROM failures"))
    assert failed == {word: outcome for word, (_, outcome, _) in NEVER_GOOD.items()}
    drafts = dict(rows("crawl.db", "SELECT word, draft FROM failures WHERE draft IS NOT NULL"))
    assert drafts == dict.fromkeys(["half", "odd", "odd-object", "cut-off"], HALF)
    crawl("check")


def test_thoughts_are_kept_beside_the_answer(crawl_of):
    thinking = ("parts", "think", "half-think", "channels", "reasoning")
    crawl = crawl_of(GOOD_FORMS.get)
    crawl.prepare(thinking)
    crawl("run")
    stored = rows("crawl.db", "SELECT DISTINCT text, substr(thoughts, 1, 2) FROM responses")
    assert stored == [(GOOD, "hm")]


def test_json_is_read_out_of_what_surrounds_it_and_the_whole_schema_counts(crawl_of):
    crawl = crawl_of({**GOOD_JSON, **BAD_JSON}.get)
    crawl.prepare([*GOOD_JSON, *BAD_JSON], "--schema", json.dumps(SCHEMA))
    crawl("run", code=Exit.SOME_FAILED)
    assert dict(rows("crawl.db", "SELECT word, text FROM results")) == dict.fromkeys(
        GOOD_JSON, NOUN
    )
    failed = dict(rows("crawl.db", "SELECT word, outcome FROM failures"))
    assert failed == dict.fromkeys(BAD_JSON, "no_answer")
    assert crawl.asked() == {**dict.fromkeys(GOOD_JSON, 1), **dict.fromkeys(BAD_JSON, 5)}
    crawl("check")


@pytest.mark.parametrize(
    "said", [(400, error("Bad Request")), (422, error("unprocessable")), (404, b"no")]
)
def test_one_bad_word_among_good_ones_fails_alone_after_one_call(crawl_of, said):
    words = [f"word{n}" for n in range(20)]
    crawl = crawl_of(lambda word: said if word == "word7" else chat(GOOD))
    crawl.prepare(words)
    crawl("run", "--concurrency", "2", code=Exit.SOME_FAILED)
    assert crawl.states() == {"succeeded": 19, "failed": 1}
    assert rows("crawl.db", "SELECT word FROM failures") == [("word7",)]
    assert crawl.asked() == Counter(words)
    crawl("check")


BEFORE = 8
# What a server says for ever after some good answers: the code of the run, its calls from then on.
STOPS = {
    "retired": (404, error("The model `m` has been deprecated"), Exit.CONFIGURATION, 10),
    "ingress": (404, b"default backend - 404", Exit.CONFIGURATION, 10),
    "method": (405, b"<html><title>405 Not Allowed</title></html>", Exit.CONFIGURATION, 10),
    "moved": (301, b"", Exit.CONFIGURATION, 10),
    "parameter": (400, error("Unsupported parameter: 'top_k'"), Exit.CONFIGURATION, 10),
    "unclear": (400, error("Bad Request"), Exit.CONFIGURATION, 10),
    "credit": (400, error("Your credit balance is too low"), Exit.WORK_LEFT, 1),
    "payment": (402, error("Insufficient Balance"), Exit.WORK_LEFT, 1),
    "suspended": (403, error("Your account is suspended, check billing"), Exit.WORK_LEFT, 1),
    "quota": (429, error("no more", code="insufficient_quota"), Exit.WORK_LEFT, 1),
    "key": (401, error("invalid token"), Exit.DENIED, 3),
    "gemini-key": (400, error("API key not valid. Please pass a valid one."), Exit.DENIED, 3),
    "silent-403": (403, b"", Exit.DENIED, 3),
    "no-access": (403, error("Project does not have access to model m"), Exit.DENIED, 3),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_is_no_words_fault_stops_the_run_and_fails_none(crawl_of, name):
    status, body, code, calls = STOPS[name]
    left = {"of": BEFORE}

    def reply(word):
        left["of"] -= 1
        return chat(GOOD) if left["of"] >= 0 else (status, body)

    crawl = crawl_of(reply)
    crawl.prepare([f"word{n}" for n in range(30)])
    what, _, hint = told(crawler("run", "--concurrency", "1"), code)
    assert "stays pending" in what
    assert len(hint) > 20
    assert crawl.states() == {"succeeded": BEFORE, "pending": 30 - BEFORE}
    assert crawl.calls() == BEFORE + calls

    told(crawler("run", "--concurrency", "1"), code)
    assert crawl.calls() == BEFORE + calls + 1, "a new run sends one call"
    assert crawl.states() == {"succeeded": BEFORE, "pending": 30 - BEFORE}

    left["of"] = 1_000  # a person has acted
    crawl("run")
    assert crawl.states() == {"succeeded": 30}
    assert crawl.calls() == 30 + calls + 1
    crawl("check")


def test_a_wrong_key_is_told_after_three_calls_from_the_start(crawl_of):
    crawl = crawl_of(lambda word: (401, error("Incorrect API key provided: sk-…")))
    crawl.prepare([f"word{n}" for n in range(30)])
    _, cause, hint = told(crawler("run", "--concurrency", "1"), Exit.DENIED)
    assert cause.startswith("HTTP 401: Incorrect API key provided")
    assert hint.startswith("set a key (OPENAI_API_KEY)")
    assert crawl.calls() == 3
    assert crawl.states() == {"pending": 30}


def test_no_money_stops_one_provider_with_the_first_call(crawl_of):
    crawl = crawl_of(lambda word: (402, error("Insufficient Balance")))
    crawl.prepare([f"word{n}" for n in range(30)])
    what, cause, hint = told(crawler("run", "--concurrency", "1"), Exit.WORK_LEFT)
    assert "no money" in what
    assert cause.startswith("HTTP 402: Insufficient Balance")
    assert hint.startswith("pay, add credit")
    assert crawl.calls() == 1
    assert crawl.states() == {"pending": 30}


def test_a_model_that_is_loading_is_waited_for_and_fails_no_word(crawl_of):
    loading = error("Model m is currently loading", estimated_time=0.3)
    replies = iter([(503, loading)])
    crawl = crawl_of(lambda word: next(replies, chat(GOOD)))
    crawl.prepare(["one", "two"])
    crawl("run", "--concurrency", "1")
    assert crawl.states() == {"succeeded": 2}
    assert rows("crawl.db", "SELECT max(failures), max(no_answers) FROM requests") == [(0, 0)]
