"""Refusals over HTTP on loopback, through whole runs: what is asked, what is left, which code."""

import json

import pytest

from crawler.errors import Exit
from tests.answering import answering, chat
from tests.program import crawler, rows

LEFT = (
    "SELECT name, succeeded, failed, pending + leased FROM prompts JOIN tallies"
    " ON prompt_id = prompts.id ORDER BY name"
)


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Return a function that runs the program on a file of its own."""
    path = tmp_path / "c.db"
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def run(*args):
        return crawler("--db", path, *args)

    def add(name, model, words):
        spec = ("--template", "About {word}", "--provider", "openai", "--model", model)
        assert run("prompt", "add", name, *spec).code == Exit.DONE
        assert run("add", *words, "--prompt", name).code == Exit.DONE

    run.add, run.path = add, path
    return run


def said(message, **facts):
    return {"error": {"message": message, **facts}}


NO_MONEY = {
    "402": (402, said("Insufficient credits. Add more and retry.")),
    "402 without a word": (402, {}),
    "400": (400, said("Your credit balance is too low to access the API.")),
    "403": (403, said("Your account is suspended due to insufficient balance")),
    "412": (412, said("Account is suspended, possibly due to an unpaid invoice")),
    "429": (429, said("You exceeded your current quota", code="insufficient_quota")),
    "429 of a balance": (429, said("Insufficient balance, please recharge")),
}


@pytest.mark.parametrize("form", NO_MONEY)
@pytest.mark.parametrize("served", [0, 2])
def test_no_money_in_all_its_forms(do, monkeypatch, form, served):
    left = [served]

    def reply(body):
        left[0] -= 1
        return chat() if left[0] >= 0 else NO_MONEY[form]

    with answering(reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        do.add("p", "m", "abcdef")
        ran = do("run", "--concurrency", "1")
        assert ran.code == Exit.WORK_LEFT, ran
        assert "hint: pay, add credit or raise the spending limit" in ran.err
        assert "what is left stays pending" in ran.err
        assert rows(do.path, LEFT) == [("p", served, 0, 6 - served)]
        assert len(server.asked) == served + 1
        # The next run asks once, and goes on when there is money.
        assert do("run").code == Exit.WORK_LEFT
        assert len(server.asked) == served + 2
        left[0] = 100
        assert do("run").code == Exit.DONE
    assert rows(do.path, LEFT) == [("p", 6, 0, 0)]


TROUBLE = {
    "a minute": (429, said("Rate limit reached, requests per minute"), {"Retry-After": "2"}),
    "503": (503, said("out of order"), {}),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_trouble_of_one_model_stops_no_other(do, monkeypatch, trouble):
    broken = [True]

    def reply(body):
        return TROUBLE[trouble] if body["model"] == "a" and broken[0] else chat()

    with answering(reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        do.add("p", "a", "abcd")
        do.add("q", "b", "abcdefgh")
        for _ in range(2):  # with a restart in between
            assert do("run", "--deadline", "1s").code == Exit.WORK_LEFT
            assert rows(do.path, LEFT) == [("p", 0, 0, 4), ("q", 8, 0, 0)]
        broken[0] = False
        do("resume")
        assert do("run").code == Exit.DONE
    assert rows(do.path, LEFT) == [("p", 4, 0, 0), ("q", 8, 0, 0)]


def test_a_refused_connection_is_one_outage_for_both(do, monkeypatch):
    with answering(lambda body: chat()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    do.add("p", "a", "abcd")
    do.add("q", "b", "abcd")
    for _ in range(2):
        assert do("run", "--deadline", "1s").code == Exit.WORK_LEFT
        assert rows(do.path, LEFT) == [("p", 0, 0, 4), ("q", 0, 0, 4)]
    causes = rows(do.path, "SELECT name, gate_cause FROM limits ORDER BY name")
    assert causes == [("openai/a", "outage"), ("openai/b", "outage")]
    with answering(lambda body: chat()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        do("resume")
        assert do("run").code == Exit.DONE
    assert rows(do.path, LEFT) == [("p", 4, 0, 0), ("q", 4, 0, 0)]


def test_a_word_that_is_throttled_alone_fails_and_lets_the_others_in(do, monkeypatch):
    refused = (429, said("Rate limit reached for tokens per min"), {"Retry-After": "0.02"})

    def reply(body):
        return refused if body["messages"][-1]["content"].endswith("long") else chat()

    with answering(reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        do.add("p", "m", ["long", *(f"w{n}" for n in range(60))])
        do("limit", "openai", "--fixed")  # what an adaptive pace makes of it is the limiter's
        ran = do("run", "--concurrency", "1")
        assert ran.code == Exit.SOME_FAILED, ran
        asked = [body["messages"][-1]["content"].split()[-1] for body in server.asked]
    assert rows(do.path, LEFT) == [("p", 60, 1, 0)]
    assert asked.count("long") <= 10
    ((reason,),) = rows(do.path, "SELECT reason FROM failures")
    assert reason.startswith("its prompt is larger than the tokens a minute allow")


def test_json_in_a_fence_is_read_and_its_schema_checked(do, monkeypatch, tmp_path):
    schema = tmp_path / "s.json"
    kept = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}}}
    schema.write_text(json.dumps(kept | {"required": ["n"]}))
    told = iter(['```json\n{"n": 9}\n```', 'Here: ```json\n{"n": 3}\n``` so'])

    with answering(lambda body: chat(next(told, '```json\n{"n": 4}\n```'))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        spec = ("--template", "{word}", "--provider", "openai", "--model", "m", "--schema")
        assert do("prompt", "add", "p", *spec, f"@{schema}").code == Exit.DONE
        assert do("add", "a", "--prompt", "p").code == Exit.DONE
        assert do("run").code == Exit.DONE
        assert len(server.asked) == 3
    assert rows(do.path, "SELECT n FROM p") == [(4,)]
    shown = do("show", "a").out  # the last one that was no good is kept
    assert '     it said: Here: ```json {"n": 3} ``` so\n' in shown
