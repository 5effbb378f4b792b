"""From a command to the server and back to what is printed: each field, and what is false."""

import csv
import io
import json
import subprocess
import sys

import pytest

from crawler.errors import Exit
from tests.answering import answering, chat
from tests.program import crawler, rows, told


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Run the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CRAWLER_DB", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*args, code=Exit.DONE, **facts):
        ran = crawler(*args, **facts)
        assert ran.code == code, ran
        return ran

    return run


@pytest.fixture
def serve(monkeypatch):
    """Return a function that has a server answer the program until the end of the block."""

    def served(reply):
        server = answering(reply)
        opened = server.__enter__()
        monkeypatch.setenv("OPENAI_BASE_URL", opened.url)
        entered.append(server)
        return opened

    entered = []
    yield served
    for server in entered:
        server.__exit__(None, None, None)


def add_prompt(do, template, *params, name="p", model="m"):
    options = [item for param in params for item in ("--param", param)]
    spec = ("--template", template, "--provider", "openai", "--model", model)
    do("prompt", "add", name, *spec, *options)


def test_what_is_asked_arrives_as_it_was_said(do, serve, tmp_path):
    """A value that is 0, false or nothing is a value."""
    server = serve(lambda body: chat())
    params = ["temperature=0", "seed=0", "stop=", "logprobs=false", "user=null", "top_p=0.0"]
    params += ["system=Sei kürz", "max_output_tokens=1", "n=[0]"]
    add_prompt(do, "Über {word}[[ ({gloss})]]{answer}Ein {word}", *params)
    (tmp_path / "list.csv").write_text("word,gloss\nzähe,0\nb,\n", encoding="utf-8")
    do("add", "list.csv", "--prompt", "p")
    do("run", "--concurrency", "1")
    asked = {
        "model": "m",
        "temperature": 0,
        "seed": 0,
        "stop": "",
        "logprobs": False,
        "user": None,
        "top_p": 0.0,
        "n": [0],
        "max_tokens": 1,
    }

    def messages(prompt, beginning):
        roles = {"system": "Sei kürz", "user": prompt, "assistant": beginning}
        return [{"role": role, "content": text} for role, text in roles.items()]

    assert server.asked == [
        {**asked, "messages": messages("Über zähe (0)", "Ein zähe")},
        {**asked, "messages": messages("Über b", "Ein b")},
    ]
    assert server.paths == ["/v1/chat/completions"] * 2


def test_a_second_attempt_has_another_seed_and_the_temperature_of_a_retry(do, serve):
    told_once = iter([(400, {"error": "once"})])
    server = serve(lambda body: next(told_once, chat()))
    add_prompt(do, "{word}", "seed=0", "temperature=1", "retry_temperature=0")
    do("add", "a", "--prompt", "p")
    assert crawler("run").code != Exit.DONE
    do("retry")
    do("run")
    sent = [(body["seed"], body["temperature"]) for body in server.asked]
    assert sent == [(0, 1), (1, 0)]
    assert rows("crawl.db", "SELECT attempts FROM results") == [(2,)]


def test_two_models_are_asked_each_about_its_own(do, serve):
    server = serve(lambda body: chat(body["model"]))
    add_prompt(do, "About {word}", name="p", model="m-1")
    add_prompt(do, "Of {word}", name="q", model="m-2")
    do("add", "a", "--prompt", "p")
    do("add", "a", "b", "--prompt", "q")
    do("run")
    sent = sorted((body["model"], body["messages"][-1]["content"]) for body in server.asked)
    assert sent == [("m-1", "About a"), ("m-2", "Of a"), ("m-2", "Of b")]
    found = rows("crawl.db", "SELECT prompt, word, text FROM results ORDER BY 1, 2")
    assert found == [("p", "a", "m-1"), ("q", "a", "m-2"), ("q", "b", "m-2")]


FIELDS = "tokens_in, tokens_out, tokens_thought, finish_reason, model_version, truncated"


@pytest.mark.parametrize(
    ("answer", "params", "expected"),
    [
        (
            chat(prompt_tokens=7, completion_tokens=5),
            [],
            (7, 5, None, "stop", "m-1", 0),
        ),
        # No call uses nothing: nobody has counted.
        (chat(prompt_tokens=0, completion_tokens=0), [], (None, None, None, "stop", "m-1", 0)),
        (chat(prompt_tokens=7, completion_tokens=0), [], (7, 0, None, "stop", "m-1", 0)),
        (chat(prompt_tokens=7), [], (7, None, None, "stop", "m-1", 0)),
        (chat(completion_tokens=7), [], (None, 7, None, "stop", "m-1", 0)),
        (
            chat(completion_tokens=9, completion_tokens_details={"reasoning_tokens": 4}),
            [],
            (None, 5, 4, "stop", "m-1", 0),
        ),
        (chat(finish_reason=None, model=None), [], (None, None, None, None, None, 0)),
        (
            chat(finish_reason="length"),
            ["allow_truncated=true"],
            (None, None, None, "length", "m-1", 1),
        ),
    ],
)
def test_what_is_answered_is_on_record_as_it_was_said(do, serve, answer, params, expected):
    serve(lambda body: answer)
    add_prompt(do, "{word}", *params)
    do("add", "a", "--prompt", "p")
    do("run")
    assert rows("crawl.db", f"SELECT {FIELDS} FROM results") == [expected]


@pytest.mark.parametrize("params", [[], ["allow_truncated=false"]])
def test_a_cut_off_answer_is_kept_for_nobody_who_did_not_ask_for_it(do, serve, params):
    server = serve(lambda body: chat("cut o", finish_reason="length", prompt_tokens=3))
    add_prompt(do, "{word}", *params)
    do("add", "a", "--prompt", "p")
    do("run", code=Exit.SOME_FAILED)
    assert rows("crawl.db", "SELECT count(*) FROM results") == [(0,)]
    assert rows("crawl.db", "SELECT outcome, draft FROM failures") == [("no_answer", "cut o")]
    assert rows("crawl.db", "SELECT truncated, tokens_in FROM attempts") == [(1, 3)] * 3
    assert len(server.asked) == 3


@pytest.mark.parametrize("sign", ["(RPD)", "(TPD)", "TPD", "per day"])
def test_a_day_that_is_used_up_ends_the_run(do, serve, sign):
    server = serve(lambda body: (429, {"error": {"message": f"no more {sign}"}}))
    add_prompt(do, "{word}")
    do("add", "a", "--prompt", "p")
    what, cause, _ = told(crawler("run", "--deadline", "5s"), Exit.WORK_LEFT)
    assert "the day is used up" in what
    assert cause.startswith("the quota opens at 20")
    assert rows("crawl.db", "SELECT gate_cause, state FROM limits, requests") == [
        ("day", "pending")
    ]
    assert len(server.asked) == 1


def test_an_account_without_money_ends_the_run_and_fails_nothing(do, serve):
    said = "You exceeded your current quota, please check your plan and billing details."
    server = serve(lambda body: (429, {"error": {"message": said}}))
    add_prompt(do, "{word}")
    do("add", "a", "--prompt", "p")
    what, cause, hint = told(crawler("run", "--deadline", "5s"), Exit.WORK_LEFT)
    assert "no money" in what
    assert said in cause
    assert hint.startswith("pay, add credit or raise the spending limit")
    assert rows("crawl.db", "SELECT gate_cause, state FROM limits, requests") == [(None, "pending")]
    assert len(server.asked) == 1


@pytest.mark.parametrize("sign", ["(RPM)", "(TPM)", "per minute", "a whole day long"])
def test_a_minute_that_is_used_up_is_no_day(do, serve, sign):
    replies = iter([(429, {"error": {"message": f"no more {sign}"}})])
    server = serve(lambda body: next(replies, chat()))
    add_prompt(do, "{word}")
    do("add", "a", "--prompt", "p")
    do("run")
    assert len(server.asked) == 2
    why = rows("crawl.db", "SELECT why FROM limit_history WHERE what = 'gate_closed'")
    assert [text.partition(":")[0] for (text,) in why] == ["quota"]


def test_a_budget_knows_what_an_answer_has_used(do, serve):
    """The server says half of it: then the call has used the most that it could."""
    usage = {"prompt_tokens": 3}
    server = serve(lambda body: chat(**usage))
    add_prompt(do, "{word}", "max_output_tokens=100")
    do("add", *"abcd", "--prompt", "p")
    most = len('{word}{"max_output_tokens": 100}a') + 100
    do("run", "--concurrency", "1", "--budget", str(2 * most), code=Exit.WORK_LEFT)
    assert len(server.asked) == 2
    usage["completion_tokens"] = 0
    do("run", "--budget", str(most + 3))
    assert len(server.asked) == 4


class TestFalseValues:
    """What is 0, false or empty is no less there than anything else."""

    WORDS = ("0", "false", "null", "None", "0.0", "-")

    def test_words(self, do, serve, tmp_path):
        server = serve(lambda body: chat(body["messages"][-1]["content"]))
        add_prompt(do, "{word}")
        do("add", "0", "false", "--prompt", "p")
        (tmp_path / "list.txt").write_text("null\n\nNone\n")
        (tmp_path / "list.csv").write_text('word\n0.0\n""\n')
        (tmp_path / "list.jsonl").write_text('"0"\n"-"\n')
        do("add", "list.txt", "list.csv", "list.jsonl", "--prompt", "p")
        do("run")
        assert len(server.asked) == 6
        found = rows("crawl.db", "SELECT word, text FROM results ORDER BY request_id")
        assert found == [(word, word) for word in self.WORDS]
        assert "0 " in do("show", "0").out
        assert do("ask", "0", "--prompt", "p").out == "0\n"
        assert len(server.asked) == 6, "it has its answer"
        assert do("cancel", "0").err == "0 pending requests are cancelled\n"

    @pytest.mark.parametrize(
        ("line", "prompt"),
        [
            ('{"word": "a", "n": 0}', "a 0"),
            ('{"word": "a", "n": 0.0}', "a 0.0"),
            ('{"word": "a", "n": false}', "a false"),
            ('{"word": "a", "n": "0"}', "a 0"),
            ('{"word": "a", "n": []}', "a []"),
            ('{"word": "a", "n": ""}', "a"),
            ('{"word": "a", "n": null}', "a"),
            ('{"word": "a"}', "a"),
        ],
    )
    def test_fields_of_json_lines(self, do, serve, tmp_path, line, prompt):
        server = serve(lambda body: chat())
        add_prompt(do, "{word}[[ {n}]]")
        (tmp_path / "list.jsonl").write_text(line)
        do("add", "list.jsonl", "--prompt", "p")
        do("run")
        assert [body["messages"][-1]["content"] for body in server.asked] == [prompt]

    @pytest.mark.parametrize(
        ("cell", "prompt"), [("0", "a 0"), ("false", "a false"), ("", "a"), ("  ", "a")]
    )
    def test_cells_of_a_table(self, do, serve, tmp_path, cell, prompt):
        server = serve(lambda body: chat())
        add_prompt(do, "{word}[[ {n}]]")
        (tmp_path / "list.csv").write_text(f"word,n\na,{cell}\n")
        (tmp_path / "list.tsv").write_text(f"word\tn\nb\t{cell}\n")
        do("add", "list.csv", "list.tsv", "--prompt", "p")
        do("run")
        asked = [body["messages"][-1]["content"] for body in server.asked]
        assert sorted(asked) == [prompt, prompt.replace("a", "b", 1)]

    def test_parameters_are_kept_apart(self, do):
        values = ["0", "false", "", "null", '"0"', "0.0", "[]", "{}"]
        add_prompt(do, "{word}", f"x={values[0]}")
        for value in values[1:]:
            assert do("prompt", "edit", "p", "--param", f"x={value}").code == Exit.DONE
        assert do("prompt", "edit", "p", "--unset-param", "x").code == Exit.DONE
        found = json.loads(do("prompt", "list", "--json").out)
        assert [row["version"] for row in found] == list(range(1, len(values) + 2))
        known = [json.dumps(row["params"]) for row in found]
        shown = ["0", "false", '""', "null", '"0"', "0.0", "[]", "{}"]
        assert known == [*(f'{{"x": {value}}}' for value in shown), "{}"]
        assert do("prompt", "edit", "p", "--param", "x=0").code == Exit.DONE
        assert "  x = 0\n" in do("prompt", "show", "p").out
        assert json.loads(do("prompt", "list", "--json").out)[0]["current"] is True

    @pytest.mark.parametrize("answer", ["0", "false", "null", "-", "[]"])
    def test_answers(self, do, serve, answer):
        serve(lambda body: chat(answer, prompt_tokens=7, completion_tokens=0))
        add_prompt(do, "{word}")
        do("add", "a", "--prompt", "p")
        do("run")
        assert rows("crawl.db", "SELECT text FROM results") == [(answer,)]
        ran = do("export", "--prompt", "p")
        assert ran.err == "1 of 1 word has an answer\n"
        [row] = csv.DictReader(io.StringIO(ran.out))
        assert row["text"].removeprefix("'") == answer
        assert (row["tokens_in"], row["tokens_out"], row["attempts"]) == ("7", "0", "1")
        [line] = do("export", "--prompt", "p", "--format", "jsonl").out.splitlines()
        known = json.loads(line)
        assert (known["text"], known["tokens_out"], known["truncated"]) == (answer, 0, False)
        assert do("ask", "a", "--prompt", "p").out == f"{answer}\n"
        assert do("show", "a").out.splitlines()[3] == answer

    @pytest.mark.parametrize("answer", ["", "  ", None])
    def test_nothing_is_no_answer(self, do, serve, answer):
        serve(lambda body: chat(answer))
        add_prompt(do, "{word}")
        do("add", "a", "--prompt", "p")
        do("run", "--max-failures", "1", code=Exit.SOME_FAILED)
        assert rows("crawl.db", "SELECT reason FROM failures") == [("the answer is empty (stop)",)]

    def test_values_of_a_question_in_sql(self, do):
        add_prompt(do, "{word}")
        query = "SELECT 0 AS a, '' AS b, NULL AS c, 0.0 AS d, '0' AS e"
        [row] = json.loads(do("sql", "--json", query).out)
        assert row == {"a": 0, "b": "", "c": None, "d": 0.0, "e": "0"}
        assert json.loads(do("sql", "--jsonl", query).out) == row
        assert do("sql", "--csv", query).out == "a,b,c,d,e\n0,,,0.0,0\n"
        assert do("sql", query).out.splitlines()[-1].split() == ["0", "0.0", "0"]
        assert json.loads(do("sql", "--json", "SELECT 1 WHERE 0").out) == []

    def test_fields_of_an_answer_that_has_a_schema(self, do, serve):
        answer = {"n": 0, "yes": False, "text": "", "none": None}
        serve(lambda body: chat(json.dumps(answer)))
        schema = {"type": "object", "properties": {name: {} for name in answer}}
        add_prompt(do, "{word}", f"response_schema={json.dumps(schema)}")
        do("add", "a", "--prompt", "p")
        do("run")
        assert rows("crawl.db", "SELECT n, yes, text, none FROM p") == [(0, 0, "", None)]


@pytest.mark.parametrize("reader", ["2>&1 | true", "2>&-"])
def test_the_code_of_a_run_is_kept_when_nobody_reads_what_it_says(do, serve, reader):
    serve(lambda body: (402, {"error": {"message": "Insufficient Balance"}}))
    add_prompt(do, "{word}")
    do("add", "a", "--prompt", "p")
    line = f"set -o pipefail; {sys.executable} -m crawler run {reader}"
    assert subprocess.run(["bash", "-c", line], check=False).returncode == Exit.WORK_LEFT
