"""The program as people and scripts use it: every command, every exit code, the shape of errors,
and that nothing hostile reaches a terminal."""

import csv
import io
import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.cli.terminal import as_json, printable
from crawler.clock import boot_id, since_boot_ms, wall_ms
from crawler.errors import Exit, quoted
from tests.program import crawler, crawler_process, crawler_terminal, told

SCRIPTED = ("--provider", "scripted", "--template")
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\x9b31m\x7fd\re\u202ef\u2066g\u061ch"


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Return a function that runs the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CRAWLER_DB", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return crawler


@pytest.fixture
def asked(do):
    """As `do`, with a prompt `p` that has the words b and a."""
    assert do("prompt", "add", "p", *SCRIPTED, "About {word}").code == Exit.DONE
    assert do("add", "b", "a", "--prompt", "p").code == Exit.DONE
    return do


def rows(do, query):
    ran = do("sql", "--json", query)
    assert ran.code == Exit.DONE, ran
    return [tuple(row.values()) for row in json.loads(ran.out)]


def states(do):
    return dict(rows(do, "SELECT text, state FROM requests JOIN words ON words.id = word_id"))


def change(script):
    """Change the file by hand."""
    with sqlite3.connect("crawl.db") as conn:
        conn.executescript(script)
    conn.close()


@contextmanager
def server(status, body, headers=()):
    """Serve one answer to everybody, on loopback; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()
        thread.join()


class TestAdd:
    def test_words_and_files_and_standard_input(self, do, tmp_path):
        (tmp_path / "list.csv").write_text("word,gloss\nzeal,x\n")
        ran = do("add", "abase", "list.csv", "-", stdin="cat\ndog\n")
        assert ran == (
            Exit.DONE,
            "",
            "4 added to study-notes version 1 (local, SmolLM2-135M-Instruct)\n",
        )
        assert rows(do, "SELECT text, fields FROM words ORDER BY id") == [
            ("abase", None),
            ("zeal", '{"gloss": "x"}'),
            ("cat", None),
            ("dog", None),
        ]

    def test_what_is_there_stays_as_it_is_and_lacking_fields_are_filled_in(self, asked, tmp_path):
        (tmp_path / "list.csv").write_text("word,gloss\na,new\nc,new\n")
        ran = asked("add", "list.csv", "--prompt", "p")
        assert ran.err == (
            "1 added to p version 1 (scripted, scripted), 1 known already\n"
            "1 known with other fields: kept, or filled in where there was none; to take those of"
            " the list: --update\n"
        )
        gloss = [('{"gloss": "new"}',)]
        assert rows(asked, "SELECT fields FROM words WHERE text = 'a'") == gloss
        (tmp_path / "list.csv").write_text("word,gloss\na,newer\n")
        asked("add", "list.csv", "--prompt", "p")
        assert rows(asked, "SELECT fields FROM words WHERE text = 'a'") == gloss

    def test_duplicates_are_told(self, asked):
        ran = asked("add", "x", "y", "x", "x ", "y", "--prompt", "p")
        assert ran.err.splitlines()[1] == "3 repeated in the list: x, y"

    def test_the_word_may_be_in_another_column(self, asked, tmp_path):
        (tmp_path / "list.tsv").write_text("term\tword\nzeal\tother\n")
        assert asked("add", "list.tsv", "--column", "term", "--prompt", "p").code == Exit.DONE
        found = rows(asked, "SELECT fields FROM words WHERE text = 'zeal'")
        assert found == [('{"word": "other"}',)]

    @pytest.mark.parametrize("name", ["missing.csv", "missing.TXT", "folder/missing"])
    def test_a_missing_file_is_no_word(self, asked, name):
        what, _, _ = told(asked("add", "c", name, "--prompt", "p"), Exit.USAGE)
        assert what == f"there is no file {name}"
        assert states(asked).keys() == {"a", "b"}

    def test_a_directory_is_no_list(self, asked, tmp_path):
        what, _, _ = told(asked("add", str(tmp_path), "--prompt", "p"), Exit.USAGE)
        assert what == f"{tmp_path} is a directory"

    @pytest.mark.parametrize("text", ["", "\n  \n"])
    def test_an_empty_list_is_told(self, asked, tmp_path, text):
        (tmp_path / "none.txt").write_text(text)
        ran = asked("add", "none.txt", "-", "--prompt", "p", stdin=text)
        assert ran.err.splitlines()[:2] == [
            "none.txt has no word in it",
            "standard input has no word in it",
        ]

    def test_words_that_lack_a_needed_field_are_not_added(self, asked, tmp_path):
        asked("prompt", "add", "q", *SCRIPTED, "{word} is {gloss}[[, a {kind}]]")
        (tmp_path / "list.csv").write_text("word,gloss\nc,\nd,x\n")
        what, cause, _ = told(asked("add", "list.csv", "--prompt", "q"), Exit.USAGE)
        assert what == "1 of 2 words can't be asked about; none was added"
        assert cause.endswith("needs gloss, which they have not, for example c")
        assert states(asked).keys() == {"a", "b"}

    def test_a_prompt_has_to_be_there(self, do):
        what, _, _ = told(do("add", "a", "--prompt", "nope"), Exit.USAGE)
        assert what == "there is no prompt 'nope'"


class TestPrompt:
    def test_the_same_is_the_same_version(self, asked):
        params = ("--param", "words=3", "--param", "seed=1")
        assert (
            asked("prompt", "add", "q", *SCRIPTED, "{word}", *params).err == "q version 1 added\n"
        )
        again = asked("prompt", "add", "q", *SCRIPTED, "{word}", *params[2:], *params[:2])
        assert again.err == "q version 1 is the current one\n"

    @pytest.mark.parametrize(
        "other",
        [
            (*SCRIPTED, "About {word}!"),
            (*SCRIPTED, "About {word}", "--model", "m"),
            (*SCRIPTED, "About {word}", "--param", "words=3"),
            ("--template", "About {word}", "--provider", "local"),
        ],
    )
    def test_what_shapes_an_answer_makes_a_version(self, asked, other):
        assert told(asked("prompt", "add", "p", *other), 2)[2].startswith("crawler prompt edit p ")
        assert asked("prompt", "edit", "p", *other).err.startswith("p version 2: ")
        listed = json.loads(asked("prompt", "list", "--json").out)
        assert [(row["version"], row["current"]) for row in listed] == [(1, False), (2, True)]

    def test_a_new_version_is_asked_about_what_has_no_answer(self, asked):
        assert asked("run", "--limit", "1").code == Exit.WORK_LEFT
        ran = asked("prompt", "edit", "p", "--template", "Define {word}")
        assert ran.err.endswith(
            "\n1 word waits for it. 1 answer of other versions stays and is stale (ask again:"
            " crawler retry --stale)\n"
        )
        assert asked("run").code == Exit.DONE
        assert rows(asked, "SELECT version, word, stale FROM results ORDER BY 1") == [
            (1, "b", 1),
            (2, "a", 0),
        ]

    def test_going_back_to_a_version_asks_only_what_it_lacks(self, asked):
        asked("run", "--limit", "1")
        asked("prompt", "add", "p", *SCRIPTED, "Define {word}")
        ran = asked("prompt", "add", "p", *SCRIPTED, "About {word}")
        assert ran.err == "p version 1 is the current one\n"
        assert asked("run").code == Exit.DONE
        assert rows(asked, "SELECT version, word FROM results ORDER BY request_id") == [
            (1, "b"),
            (1, "a"),
        ]

    def test_params_are_json_where_they_can_be(self, do):
        params = ["seed=1", "user=x y", 'stop=["z"]', "lora=", "grammar==", "logprobs=true"]
        options = [option for param in params for option in ("--param", param)]
        do("prompt", "add", "q", *SCRIPTED, "{word}", *options)
        [(found,)] = rows(do, "SELECT params FROM prompts")
        assert json.loads(found) == {
            "seed": 1,
            "user": "x y",
            "stop": ["z"],
            "lora": "",
            "grammar": "=",
            "logprobs": True,
        }

    def test_a_template_may_come_from_a_file(self, do, tmp_path):
        (tmp_path / "t.txt").write_text("Define {word}.\n\nBriefly: ä\n")
        assert do("prompt", "add", "q", *SCRIPTED, "@t.txt", "--param", "seed=1").code == Exit.DONE
        assert do("prompt", "show", "q").out == (
            "q version 1: scripted, scripted\n  seed = 1\n\nDefine {word}.\n\nBriefly: ä\n"
        )

    @pytest.mark.parametrize(
        ("args", "cause"),
        [
            (("q", *SCRIPTED, "no name"), "it has no {word} in it"),
            (("q", *SCRIPTED, "{word.__class__}"), "it has no {word} in it"),
            (("q", *SCRIPTED, "@missing.txt"), "No such file"),
            (("q", *SCRIPTED, "{word}", "--param", "seed"), "'seed' is not NAME=VALUE"),
            (("q", *SCRIPTED, "{word}", "--param", "=1"), "'=1' is not NAME=VALUE"),
            (("q", "--template", "{word}", "--provider", "openai"), "it has no default"),
            (("q", "--template", "{word}", "--provider", "nmae"), "the providers are local"),
            (("q", "--template", "{word}"), "Missing option '--provider'"),
            (("", *SCRIPTED, "{word}"), "it must not be empty"),
            (("q", *SCRIPTED, "{word}", "--limit", ""), "it must not be empty"),
        ],
    )
    def test_what_makes_no_prompt_is_refused(self, do, tmp_path, args, cause):
        _, why, _ = told(do("prompt", "add", *args), Exit.USAGE)
        assert cause in why
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("provider", "options", "code", "cause"),
        [
            ("local", ("--model", "no.gguf"), 78, "nor a GGUF file"),
            ("local", ("--model", "t.txt"), 78, "none in the format GGUF"),
            ("local", ("--model", "."), 78, "nor a GGUF file"),
            ("local", ("--param", "temprature=1"), 2, "is temperature meant?"),
            ("local", ("--param", "temperature=hot"), 2, "'hot', and has to be a number"),
            ("local", ("--param", "temperature=true"), 2, "has to be a number"),
            ("local", ("--param", "max_output_tokens=1.5"), 2, "has to be a whole number"),
            ("local", ("--param", 'checks=["spelling"]'), 2, "a list of ends_as_sentence and"),
            ("vertex", ("--model", "gemini 2.5"), 2, "no blank"),
            ("vertex", ("--param", "allow_truncated=yes"), 2, "has to be true or false"),
            ("openai", ("--model", "m", "--param", "allow_truncated=1"), 2, "true or false"),
        ],
    )
    def test_what_can_not_work_is_refused_at_once(
        self, do, tmp_path, provider, options, code, cause
    ):
        (tmp_path / "t.txt").write_text("no model")
        given = ("--template", "{word}", "--provider", provider, *options)
        assert cause in told(do("prompt", "add", "q", *given), code)[1]
        assert not (tmp_path / "crawl.db").exists()

    def test_a_local_model_of_ones_own_and_its_parameters_are_taken(self, do, tmp_path):
        (tmp_path / "m.gguf").write_bytes(b"GGUF and more")
        params = ["temperature=0", "seed=3", 'stop=["."]', "stop=x", "top_k=5", "cache_prompt=true"]
        options = [option for param in params for option in ("--param", param)]
        given = ("--template", "{word}", "--provider", "local", "--model", "m.gguf", *options)
        assert do("prompt", "add", "q", *given).code == Exit.DONE

    def test_a_template_that_does_not_name_the_word_is_asked_about(self, do):
        ran = do("prompt", "add", "q", *SCRIPTED, "Define {wrod}.")
        assert ran.err == (
            "q version 1 added\n"
            "is {word} meant? its words need {wrod}: a list with the column wrod\n"
            "is that meant? There is no {word} in the template; of a word is told only its wrod\n"
        )

    def test_the_list_marks_the_current_ones(self, asked):
        asked("prompt", "edit", "p", *SCRIPTED, "Define {word}")
        lines = asked("prompt", "list").out.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [["p", "1", "scripted"], ["*", "p", "2"]]

    def test_one_that_is_not_there_cannot_be_shown(self, asked):
        told(asked("prompt", "show", "nope"), Exit.USAGE)


class TestRun:
    def test_it_runs_to_the_end_and_a_second_time_does_nothing(self, asked):
        assert asked("run").code == Exit.DONE
        assert states(asked) == {"a": "succeeded", "b": "succeeded"}
        assert asked("run").code == Exit.DONE
        assert rows(asked, "SELECT count(*) FROM attempts") == [(2,)]
        assert asked("check").code == Exit.DONE

    def test_it_can_be_run_dry(self, do):
        do("add", "cat")
        assert do("run", "--provider", "scripted").code == Exit.DONE
        assert rows(do, "SELECT provider, word FROM results") == [("scripted", "cat")]

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (("--provider", "openai", "--model", "m"), Exit.DENIED),
            (("--provider", "local", "--model", "no.gguf"), Exit.CONFIGURATION),
            (("--provider", "vertex", "--model", "two words"), Exit.USAGE),
        ],
    )
    def test_who_can_not_be_asked_changes_nothing(self, asked, options, code):
        assert asked("run").code == Exit.DONE
        before = (
            rows(asked, "SELECT * FROM prompts"),
            states(asked),
            rows(asked, "SELECT * FROM limits"),
        )
        told(asked("run", *options), code)
        after = (
            rows(asked, "SELECT * FROM prompts"),
            states(asked),
            rows(asked, "SELECT * FROM limits"),
        )
        assert after == before

    def test_a_new_version_is_told_with_the_way_back(self, asked):
        assert asked("run").code == Exit.DONE
        ran = crawler_terminal("run", "--model", "other one", "--limit", "1")
        first, waiting = ran.out.replace("\n    ", " ").splitlines()[:2]  # as they are wrapped
        version, undo = first.split("; ")
        assert version == "p version 2: model scripted → other one"
        assert waiting.startswith("0 words wait for it. 2 answers of other versions stay and are")
        command = ("run", "--prompt", "p", "--model", "scripted")
        ran = asked(*command)
        assert ran.code == Exit.DONE
        changed = json.loads(ran.err.splitlines()[0])
        assert (changed["event"], changed["version"]) == ("prompt_changed", 1)
        assert changed["back"] == "crawler prompt edit p --to 2"
        assert (changed["words"], changed["stale"]) == (0, 0), "all have their answers"
        assert rows(asked, "SELECT count(*) FROM attempts") == [(2,)]
        assert "prompt_changed" not in asked(*command).err
        assert undo == "undo: crawler prompt edit p --to 1"

    def test_only_one_prompt(self, asked):
        asked("prompt", "add", "q", *SCRIPTED, "Of {word}")
        asked("add", "c", "--prompt", "q")
        assert asked("run", "--prompt", "q").code == Exit.DONE
        assert states(asked) == {"a": "pending", "b": "pending", "c": "succeeded"}

    def test_its_limits_are_kept(self, asked):
        assert asked("run", "--concurrency", "3", "--per-minute", "70").code == Exit.DONE
        [limit] = json.loads(asked("limit", "--json").out)
        assert (limit["concurrency"], limit["per_minute"]) == (3, 70)

    def test_a_budget_of_tokens_is_never_exceeded(self, do):
        do("prompt", "add", "p", *SCRIPTED, "Define {word}", "--param", "max_output_tokens=40")
        do("add", *map(str, range(100)), "--prompt", "p")
        ran = do("run", "--budget", "500")
        assert "the budget is used up" in told(ran, Exit.WORK_LEFT)[0]
        [(used,)] = rows(do, "SELECT sum(tokens_in + tokens_out) FROM attempts")
        assert 400 < used <= 500
        told(do("run", "--budget", "0.0005", "--price", "0.30/2.50"), Exit.WORK_LEFT)
        [(cost,)] = rows(
            do,
            "SELECT sum(tokens_in * 0.3 + tokens_out * 2.5) / 1e6 FROM attempts WHERE run_id = 2",
        )
        assert 0.0003 < cost <= 0.0005
        assert do("run").code == Exit.DONE

    @pytest.mark.parametrize(
        "options",
        [
            ("--budget", "1.5"),
            ("--budget", "0"),
            ("--budget", "-3"),
            ("--budget", "much"),
            ("--price", "1/2"),
            ("--budget", "1", "--price", "1"),
            ("--budget", "1", "--price", "1/x"),
        ],
    )
    def test_a_budget_that_is_none_is_refused(self, asked, options):
        told(asked("run", *options), Exit.USAGE)
        assert rows(asked, "SELECT count(*) FROM runs") == [(0,)]

    def test_which_limit_is_meant_has_to_be_clear(self, asked):
        asked("prompt", "add", "q", *SCRIPTED, "Of {word}", "--limit", "other")
        _, cause, _ = told(asked("run", "--per-minute", "5"), Exit.USAGE)
        assert "other, scripted/scripted" in cause

    def test_what_is_said_of_a_provider_is_so_for_each_of_its_models(self, asked):
        asked("prompt", "add", "q", *SCRIPTED, "Of {word}", "--model", "a/b")
        asked("prompt", "add", "r", *SCRIPTED, "On {word}", "--model", "a")
        set_for = "SELECT name, per_minute FROM limits ORDER BY name"
        assert asked("run", "--per-minute", "5", "--deadline", "0s").code == Exit.WORK_LEFT
        names = ["scripted/a", "scripted/a/b", "scripted/scripted"]
        assert rows(asked, set_for) == [(name, 5) for name in names]
        shown = json.loads(asked("limit", "scripted", "--per-minute", "6", "--json").out)
        assert [(row["limit"], row["per_minute"]) for row in shown] == [
            (n, 6)
            for n in sorted(names, key=["scripted/scripted", "scripted/a/b", "scripted/a"].index)
        ]
        asked("limit", "scripted/a", "--per-minute", "7")
        assert rows(asked, set_for) == [(names[0], 7), (names[1], 6), (names[2], 6)]
        assert all(name in asked("pause", "scripted").err for name in names)
        asked("resume", "scripted/a")
        paused = "SELECT name FROM limits WHERE paused_at_ms IS NOT NULL ORDER BY name"
        assert rows(asked, paused) == [("scripted/a/b",), ("scripted/scripted",)]
        asked("resume", "scripted")
        assert rows(asked, paused) == []

    def test_a_file_with_a_limit_of_its_provider_keeps_it(self, asked):
        change("UPDATE limits SET name = 'scripted'")  # as earlier versions named it
        asked("prompt", "add", "p", *SCRIPTED, "Of {word}")
        asked("prompt", "add", "q", *SCRIPTED, "Of {word}", "--model", "n")
        asked("run", "--model", "o", "--deadline", "0s")
        assert rows(asked, "SELECT name FROM limits") == [("scripted",)]

    def test_it_logs_events_and_no_texts(self, asked):
        ran = asked("run")
        events = [json.loads(line)["event"] for line in ran.err.splitlines()]
        assert events == ["run_started", "run_ended"]
        assert "About" not in ran.err


class TestExitCodes:
    def test_done_with_failures_is_3(self, do):
        do("prompt", "add", "p", *SCRIPTED, "{word}", "--param", 'errors={"rejected": 1}')
        do("add", "a", "--prompt", "p")
        assert do("run").code == Exit.SOME_FAILED
        assert rows(do, "SELECT word, outcome, attempts FROM failures") == [("a", "rejected", 1)]

    def test_a_short_list_of_which_all_is_rejected_is_78_and_no_words_fault(
        self, asked, monkeypatch
    ):
        with server(404, b'{"error": "model typo not found"}') as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            ran = asked("run", "--provider", "openai", "--model", "typo")
            what, cause, hint = told(ran, Exit.CONFIGURATION)
            assert what.endswith("what is left stays pending")
            assert cause.startswith("HTTP 404: model typo not found")
            assert hint.startswith("name a model that the server has")
            assert states(asked) == {"a": "pending", "b": "pending"}
            assert asked("run").code == Exit.CONFIGURATION, "it is still so"
        assert asked("run", "--provider", "scripted", "--model", "scripted").code == Exit.DONE

    def test_status_and_show_say_why_a_prompt_is_stopped_until_it_is_served(
        self, asked, monkeypatch
    ):
        said = b'{"error": "model typo not found"}'
        with server(404, said) as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            asked("run", "--provider", "openai", "--model", "typo")
        stopped = "p is stopped: HTTP 404: model typo not found; name a model"
        assert stopped in asked("status").out
        [one] = json.loads(asked("status", "--json").out)["stopped"]
        assert (one["prompt"], one["reason_code"]) == ("p", "model_missing")
        shown = asked("show", "b").out
        assert "(configuration): crawler run (HTTP 404: model typo not found" in shown
        asked("run", "--provider", "scripted", "--model", "scripted")
        assert "is stopped" not in asked("status").out
        assert json.loads(asked("status", "--json").out)["stopped"] == []

    def test_words_that_lack_a_field_are_the_words_fault(self, asked, tmp_path):
        (tmp_path / "list.csv").write_text("word,gloss\nc,x\n")
        asked("add", "list.csv", "--prompt", "p")
        asked("prompt", "edit", "p", "--template", "{word}: {gloss}")
        assert asked("run").code == Exit.SOME_FAILED

    def test_on_a_terminal_what_has_to_be_mended_is_not_to_be_run_again(self, asked, tmp_path):
        (tmp_path / "list.txt").write_text("\n".join(f"word{n}" for n in range(30)))
        asked("add", "list.txt", "--prompt", "p")
        with server(404, b"{}") as url:
            ran = crawler_terminal(
                *("run", "--provider", "openai", "--model", "typo"), env={"OPENAI_BASE_URL": url}
            )
        assert ran.code == Exit.CONFIGURATION
        assert "left (configuration)" in ran.out
        assert "hint: mend the address (OPENAI_BASE_URL" in ran.out
        assert "go on with" not in ran.out

    def test_on_a_terminal_the_answers_to_read_are_those_about_words(self, asked):
        assert asked("seed", "birds", "--prompt", "p").code == Exit.DONE
        ran = crawler_terminal("run")
        [query] = re.findall(r'read: crawler sql "(.*)"', ran.out)
        words = [word for word, _ in rows(asked, query)]
        assert words[:2] == ["b", "a"]
        assert not any(word.startswith("list of") for word in words)

    def test_a_word_may_not_fail_for_ever(self, do):
        do("prompt", "add", "p", *SCRIPTED, "{word}", "--param", 'errors={"transient": 1}')
        do("add", "a", "--prompt", "p")
        assert do("run", "--max-failures", "1").code == Exit.SOME_FAILED

    @pytest.mark.parametrize("option", [("--limit", "1"), ("--deadline", "0s")])
    def test_stopped_with_work_left_is_75(self, asked, option):
        assert asked("run", *option).code == Exit.WORK_LEFT
        assert asked("run").code == Exit.DONE

    def test_a_quota_that_is_gone_is_75_and_says_when_to_come_back(self, asked, monkeypatch):
        with server(429, b"{}", [("Retry-After", "86400")]) as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            what, cause, _ = told(
                asked("run", "--provider", "openai", "--model", "m"), Exit.WORK_LEFT
            )
        assert what == "the quota is used up for openai/m; what is left stays pending"
        assert re.fullmatch(r"the quota opens at 20\S+Z", cause)

    def test_nobody_at_the_address_is_69(self, asked, monkeypatch):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # and not listening
            monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
            asked("run", "--provider", "openai", "--model", "m", "--deadline", "0s")
            since_ms = wall_ms() - 5_000  # and tried before
            change(
                "UPDATE limits SET gate_cause = 'outage', gate_strikes = 4, gate_opens_at_ms = 1,"
                f" gate_since_ms = {since_ms}, gate_closed_at_ms = {since_ms}"
            )
            what, cause, _ = told(asked("run"), Exit.UNREACHABLE)
        assert what == "the server can't be reached; what is left stays pending"
        assert "cannot connect" in cause

    def test_refused_credentials_are_77(self, asked, monkeypatch):
        with server(401, b'{"error": "no such key"}') as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
            ran = asked("run", "--provider", "openai", "--model", "m")
        _, cause, hint = told(ran, Exit.DENIED)
        assert cause.startswith("HTTP 401: no such key")
        assert hint.startswith("set a key (OPENAI_API_KEY)")
        assert "sk-secret" not in ran.err

    def test_no_credentials_are_77(self, asked):
        ran = asked("run", "--provider", "openai", "--model", "m")
        what, _, hint = told(ran, Exit.DENIED)
        assert "api.openai.com" in what
        assert "OPENAI_API_KEY" in hint

    def test_no_database_is_78(self, do):
        told(do("run"), Exit.CONFIGURATION)

    def test_a_place_that_cannot_be_written_is_73(self, do):
        told(do("--db", "no/such/folder/x.db", "add", "a"), Exit.DATABASE)

    def test_a_full_disk_is_73_and_what_was_there_is_there(self, asked, tmp_path):
        (tmp_path / "list.txt").write_text("\n".join(f"{n:0200}" for n in range(5_000)))
        bound = ("RLIMIT_FSIZE", 300_000)
        full = crawler_process("add", "list.txt", "--prompt", "p", bound=bound)
        assert full.code == Exit.DATABASE
        assert full.err.startswith("error: crawl.db can't be read or written\n")
        assert states(asked) == {"a": "pending", "b": "pending"}
        assert asked("check").code == Exit.DONE


class TestStatus:
    def test_it_tells_how_far_it_is(self, asked):
        asked("run", "--limit", "1")
        asked("limit", "scripted", "--per-minute", "1")
        prompt, limit, left = asked("status").out.splitlines()
        assert prompt == (
            "p version 1 (scripted: scripted):"
            " 2 requests, 1 succeeded, 0 failed, 0 in flight, 1 pending"
        )
        assert re.fullmatch(
            "limit scripted/scripted: 0 of 10 in flight, 1 of 1 started in the last minute;"
            " waits .* for the limit per minute",
            limit,
        )
        assert re.fullmatch(
            r"1 left, \d+ a minute, .*; nobody is at work since \S+Z \(max_calls\): crawler run",
            left,
        )

    def test_it_tells_when_there_is_nothing_to_do(self, asked):
        asked("run")
        assert asked("status").out.endswith("\nnothing left to do\n")

    def test_scripts_get_json(self, asked):
        asked("run", "--limit", "1")
        found = json.loads(asked("status", "--json").out)
        assert found["database"] == "crawl.db"
        assert found["unfinished"] == 1
        assert found["prompts"] == [
            {
                "prompt": "p",
                "version": 1,
                "provider": "scripted",
                "model": "scripted",
                "pending": 1,
                "leased": 0,
                "succeeded": 1,
                "failed": 0,
                "cancelled": 0,
                "current": True,
                "removed": 0,
                "stale": 0,
            }
        ]
        [limit] = found["limits"]
        assert (limit["limit"], limit["in_flight"], limit["held_by"]) == (
            "scripted/scripted",
            0,
            None,
        )
        assert found["runs"] == []

    def test_a_run_that_has_died_is_told(self, asked):
        asked("run", "--limit", "1")
        change(f"UPDATE runs SET ended_at_ms = NULL, reason = NULL, pid = {2**40}")
        assert "has died; the next run takes over what it had in flight" in asked("status").out
        [run] = json.loads(asked("status", "--json").out)["runs"]
        assert (run["run_id"], run["alive"]) == (1, False)


class TestShow:
    def test_it_tells_the_life_of_a_word(self, asked):
        asked("run", "--limit", "1")
        shown = asked("show", " b ").out.splitlines()
        assert shown[0].endswith(" · p version 1 (scripted: scripted) · succeeded")
        assert re.fullmatch(r"  1\. \S+Z  succeeded after \d+ ms", shown[1])
        assert shown[3].startswith("B: a word that the script")

    def test_one_that_has_not_been_asked_about_has_no_attempts(self, asked):
        first, why, end = asked("show", "a").out.splitlines()
        assert first == "a · p version 1 (scripted: scripted) · pending"
        assert (why, end) == ("  no run is at work: crawler run", "")
        asked("run", "--limit", "1")
        shown = [asked("show", word).out for word in "ab"]
        [why] = re.findall(r"no run is at work.*", "".join(shown))
        assert re.fullmatch(r"no run is at work since \S+Z \(max_calls\): crawler run", why)

    def test_scripts_get_json(self, asked):
        asked("run")
        [row] = json.loads(asked("show", "a", "--json").out)
        assert (row["prompt"], row["number"], row["outcome"]) == ("p", 1, "succeeded")

    def test_an_unknown_word_is_told(self, asked):
        _, _, hint = told(asked("show", "nope"), Exit.USAGE)
        assert hint == "crawler add nope"
        _, _, hint = told(asked("show", "no such"), Exit.USAGE)
        assert hint == 'crawler add "no such"'


class TestExport:
    @pytest.fixture
    def answered(self, do, tmp_path):
        """Words in another order than the alphabet's, of which all but one have an answer."""
        do("prompt", "add", "p", *SCRIPTED, "{word}{answer}=")
        (tmp_path / "list.csv").write_text('word,gloss,=evil\nz,"@x",1\n-a,,\n"m",b,\n')
        do("add", "list.csv", "--prompt", "p")
        assert do("run", "--prompt", "p").code == Exit.DONE
        do("add", "late", "--prompt", "p")
        return do

    @pytest.mark.parametrize("already", [False, True])
    def test_a_file_has_its_name_only_when_all_of_it_is_on_the_disk(
        self, answered, tmp_path, monkeypatch, already
    ):
        synced, sync = [], os.fsync

        def seen(fd):
            sync(fd)
            synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size, path.exists()))

        path = tmp_path / "notes.csv"
        if already:
            path.write_text("of before")
        monkeypatch.setattr(os, "fsync", seen)
        ran = answered("export", "--prompt", "p", "-o", "notes.csv", "--force")
        assert ran.code == Exit.DONE
        there = path.stat()
        assert synced == [(there.st_ino, there.st_size, already)]

    def test_csv_is_in_the_order_of_the_list_and_no_cell_is_a_formula(self, answered):
        ran = answered("export", "--prompt", "p")
        assert ran.err == "3 of 4 words have an answer\n"
        table = list(csv.reader(io.StringIO(ran.out)))
        assert table[0][:5] == ["word", "text", "gloss", "'=evil", "state"]
        assert [row[0] for row in table[1:]] == ["z", "'-a", "m"]
        assert table[1][1].startswith("'=Z: ")
        assert table[1][2:5] == ["'@x", "1", "succeeded"]
        for cell in (cell for row in table for cell in row):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))

    def test_the_fields_are_those_of_its_own_words(self, answered, tmp_path):
        answered("prompt", "add", "q", *SCRIPTED, "{word}")
        (tmp_path / "other.csv").write_text("word,pos\nother,noun\n")
        answered("add", "other.csv", "--prompt", "q")
        header = answered("export", "--prompt", "p").out.splitlines()[0].split(",")
        assert header[1:5] == ["text", "gloss", "'=evil", "state"]
        header = answered("export", "--prompt", "q").out.splitlines()[0].split(",")
        assert header[1:4] == ["text", "pos", "state"]

    @pytest.mark.parametrize("name", ["notes", "notes-wal", "notes-lock"])
    def test_it_never_replaces_the_database(self, answered, tmp_path, name):
        (tmp_path / "crawl.db").rename(tmp_path / "notes")
        (tmp_path / "link").symlink_to(tmp_path / name)
        before = (tmp_path / "notes").read_bytes()
        for output in (str(tmp_path / name), str(tmp_path / "link")):
            ran = answered(
                "--db",
                str(tmp_path / "notes"),
                "export",
                "--prompt",
                "p",
                "-o",
                output,
                "--force",
                "--format",
                "csv",
            )
            assert "the database itself" in told(ran, Exit.USAGE)[1]
        assert (tmp_path / "notes").read_bytes() == before

    def test_a_name_that_only_begins_like_the_database_is_free(self, answered, tmp_path):
        (tmp_path / "crawl.db").rename(tmp_path / "notes")
        ran = answered(
            "--db",
            str(tmp_path / "notes"),
            "export",
            "--prompt",
            "p",
            "-o",
            str(tmp_path / "notes.csv"),
        )
        assert ran.code == Exit.DONE

    def test_json_lines_are_exact(self, answered):
        ran = answered("export", "--prompt", "p", "--format", "jsonl", "--all")
        found = [json.loads(line) for line in ran.out.splitlines()]
        assert [row["word"] for row in found] == ["z", "-a", "m", "late"]
        assert found[0]["text"].startswith("=Z: ")
        assert found[0]["fields"] == {"gloss": "@x", "=evil": "1"}
        assert (found[3]["state"], found[3]["text"]) == ("pending", None)

    def test_all_has_the_words_without_an_answer_too(self, answered):
        table = list(csv.DictReader(io.StringIO(answered("export", "--prompt", "p", "--all").out)))
        assert [(row["word"], row["state"]) for row in table[2:]] == [
            ("m", "succeeded"),
            ("late", "pending"),
        ]

    def test_a_file_is_not_replaced_unless_told_to(self, answered, tmp_path):
        out = tmp_path / "out.jsonl"
        out.write_text("mine")
        out.chmod(0o640)
        what, _, _ = told(answered("export", "--prompt", "p", "-o", out), Exit.USAGE)
        assert what == f"{out} is there already"
        assert out.read_text() == "mine"
        assert answered("export", "--prompt", "p", "-o", out, "--force").code == Exit.DONE
        assert json.loads(out.read_text().splitlines()[0])["word"] == "z"
        assert out.stat().st_mode & 0o777 == 0o640
        assert {path.name for path in tmp_path.glob("*out*")} == {"out.jsonl"}

    def test_a_place_that_is_not_there_is_told(self, answered):
        told(answered("export", "--prompt", "p", "-o", "no/such/out.csv"), Exit.USAGE)

    def test_a_prompt_that_is_not_there_makes_no_file(self, answered, tmp_path):
        told(answered("export", "--prompt", "nope", "-o", "out.csv"), Exit.USAGE)
        assert not (tmp_path / "out.csv").exists()


class TestControl:
    @pytest.fixture
    def failed(self, do):
        """Two words that have failed."""
        do("prompt", "add", "p", *SCRIPTED, "{word}", "--param", 'errors={"blocked": 1}')
        do("add", "a", "b", "--prompt", "p")
        assert do("run").code == Exit.SOME_FAILED
        return do

    def test_retry_asks_again_what_has_failed(self, failed):
        assert failed("retry").err == "2 failed requests are pending again\n"
        assert states(failed) == {"a": "pending", "b": "pending"}

    def test_retry_may_name_the_words(self, failed):
        assert failed("retry", " b").err == "1 failed request is pending again\n"
        assert states(failed) == {"a": "failed", "b": "pending"}

    @pytest.mark.parametrize("command", [("retry", "b"), ("cancel", "a")])
    def test_an_unknown_word_changes_nothing(self, failed, command):
        what, cause, _ = told(failed(*command, "nope"), Exit.USAGE)
        assert what == "there is no word 'nope'"
        assert "nothing was changed" in cause
        assert states(failed) == {"a": "failed", "b": "failed"}

    def test_cancel_takes_back_what_was_not_asked(self, asked):
        assert asked("cancel", "a").err == "1 pending request is cancelled\n"
        assert asked("run").code == Exit.DONE
        assert states(asked) == {"a": "cancelled", "b": "succeeded"}
        assert asked("retry", "--cancelled").err == "1 cancelled request is pending again\n"
        assert asked("cancel", "--all").err == "1 pending request is cancelled\n"

    @pytest.mark.parametrize("args", [(), ("a", "--all")])
    def test_cancel_wants_to_know_exactly_what(self, asked, args):
        told(asked("cancel", *args), Exit.USAGE)
        assert states(asked) == {"a": "pending", "b": "pending"}

    def test_what_is_paused_starts_nothing_until_resumed(self, asked):
        assert asked("pause").err == "everything is paused; go on with crawler resume\n"
        assert "paused: crawler resume scripted" in asked("status").out
        assert asked("run", "--deadline", "1s").code == Exit.WORK_LEFT
        assert rows(asked, "SELECT count(*) FROM attempts") == [(0,)]
        assert asked("resume").err == "everything goes on\n"
        assert asked("run").code == Exit.DONE

    def test_one_limit_can_be_paused(self, asked):
        asked("prompt", "add", "q", *SCRIPTED, "Of {word}", "--limit", "other")
        assert asked("pause", "other").code == Exit.DONE
        found = json.loads(asked("limit", "--json").out)
        assert [row["held_by"] == "paused" for row in found] == [False, True]
        assert asked("resume", "other").code == Exit.DONE

    def test_a_pause_may_end_by_itself(self, asked):
        ran = asked("pause", "--until", "2h")
        assert "is paused until 20" in ran.err
        assert "paused until 20" in asked("status").out
        [(until_ms,)] = rows(asked, "SELECT paused_until_ms - paused_at_ms FROM limits")
        assert 7_199_000 <= until_ms <= 7_200_000
        asked("pause", "--until", "2999-12-24T18:00")
        assert "paused until 2999-12-2" in asked("status").out
        asked("resume")
        assert rows(asked, "SELECT paused_until_ms FROM limits") == [(None,)]

    @pytest.mark.parametrize("ahead_ms", [-10_800_000, 10_800_000])
    def test_a_pause_lasts_as_long_where_the_clock_of_the_file_is_another(self, asked, ahead_ms):
        """While somebody is at work, the file's time is that on which its processes agreed."""
        offset_ms = wall_ms() + ahead_ms - since_boot_ms()
        change(
            f"INSERT INTO clocks VALUES ('{boot_id()}', {offset_ms});"
            "INSERT INTO runs (pid, host, version, started_at_ms, heartbeat_at_ms)"
            " VALUES (1, 'h', '0', 1, 1);"
        )
        asked("pause", "--until", "2h")
        times = "SELECT paused_at_ms, paused_until_ms - paused_at_ms FROM limits"
        [(paused_at_ms, lasts_ms)] = rows(asked, times)
        assert abs(paused_at_ms - wall_ms() - ahead_ms) < 60_000
        assert 7_199_000 <= lasts_ms <= 7_200_000
        assert "paused until 20" in asked("status").out
        asked("resume")
        [(resumed_at_ms,)] = rows(asked, "SELECT max(at_ms) FROM limit_changes")
        assert paused_at_ms <= resumed_at_ms < paused_at_ms + 60_000

    def test_a_time_of_the_day_is_the_next_one(self, asked):
        now = datetime.now().astimezone()
        asked("pause", "--until", f"{now:%H:%M}")
        [(until_ms,)] = rows(asked, "SELECT paused_until_ms FROM limits")
        assert timedelta(hours=22) < datetime.fromtimestamp(until_ms / 1000).astimezone() - now
        asked("pause", "--until", f"{now + timedelta(hours=3):%H:%M}")
        [(until_ms,)] = rows(asked, "SELECT paused_until_ms FROM limits")
        ahead = datetime.fromtimestamp(until_ms / 1000).astimezone() - now
        assert timedelta(hours=1) < ahead <= timedelta(hours=4)

    @pytest.mark.parametrize("moment", ["25:00", "2020-01-01", "soon", "", "7:5", "90"])
    def test_a_time_that_is_none_is_refused(self, asked, moment):
        told(asked("pause", "--until", moment), Exit.USAGE)
        assert rows(asked, "SELECT paused_at_ms FROM limits") == [(None,)]

    @pytest.mark.parametrize("command", ["pause", "resume", "limit"])
    def test_an_unknown_limit_is_told(self, asked, command):
        _, cause, _ = told(asked(command, "nope"), Exit.USAGE)
        assert cause == "the limits are scripted/scripted"

    def test_limits_are_set_and_shown(self, asked, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        ran = asked("limit", "scripted", "--per-minute", "600", "--concurrency", "50")
        assert ran.out.split()[-5:] == ["scripted/scripted", "50", "600", "none", "adaptive"]
        options = ("--per-minute", "none", "--tokens-per-minute", "9000", "--fixed")
        ran = asked("limit", "scripted", *options)
        assert ran.out.split()[-5:] == ["scripted/scripted", "50", "none", "9000", "fixed"]
        asked("limit", "scripted", "--adaptive", "--tokens-per-minute", "none")
        [limit] = json.loads(asked("limit", "--json").out)
        assert (limit["adaptive"], limit["tokens_per_minute"]) == (True, None)

    @pytest.mark.parametrize(
        "args",
        [
            ("--per-minute", "5"),
            ("scripted", "--per-minute", "0"),
            ("scripted", "--per-minute", "-1"),
            ("scripted", "--per-minute", "many"),
            ("scripted", "--per-minute", "²"),
            ("scripted", "--per-minute", "9" * 30),
            ("scripted", "--tokens-per-minute", "0"),
            ("scripted", "--concurrency", "0"),
            ("scripted", "--concurrency", "9" * 30),
        ],
    )
    def test_a_limit_that_makes_no_sense_is_refused(self, asked, args):
        told(asked("limit", *args), Exit.USAGE)
        [limit] = json.loads(asked("limit", "--json").out)
        assert (limit["concurrency"], limit["per_minute"]) == (10, None)


UNGUARDED = """
    DROP TRIGGER attempts_end_once; DROP TRIGGER attempts_are_kept; DROP TRIGGER attempts_insert;
    DROP TRIGGER responses_never_change; DROP TRIGGER responses_are_kept;
    DROP TRIGGER requests_transition; DROP TRIGGER requests_are_kept;
"""
ATTEMPT = "INSERT INTO attempts (request_id, number, run_id, limit_id, started_at_ms"


class TestCheck:
    def test_a_sound_file_keeps_every_promise(self, asked):
        asked("run")
        ran = asked("check")
        assert (ran.code, ran.err) == (Exit.DONE, "")
        assert all(line.startswith("ok     ") for line in ran.out.splitlines())

    @pytest.mark.parametrize(
        ("invariant", "script"),
        [
            ("references_hold", "DROP TRIGGER words_are_kept; DELETE FROM words WHERE text = 'a'"),
            ("succeeded_has_response", "DELETE FROM responses WHERE request_id = 1"),
            ("response_has_attempt", "UPDATE attempts SET outcome = 'blocked'"),
            ("response_has_attempt", "UPDATE responses SET number = 2"),
            (
                "one_success",
                f"{ATTEMPT}, finished_at_ms, outcome) VALUES (1, 2, 1, 1, 5, 6, 'succeeded')",
            ),
            ("attempts_without_gaps", "UPDATE requests SET attempts = 5 WHERE id = 1"),
            ("attempts_without_gaps", "UPDATE attempts SET number = 3 WHERE request_id = 1"),
            ("leased_is_open", "UPDATE requests SET state = 'leased' WHERE id = 2"),
            ("leased_is_open", f"{ATTEMPT}) VALUES (1, 2, 1, 1, 5)"),
            ("open_has_run", "UPDATE attempts SET finished_at_ms = NULL, outcome = NULL"),
            ("failed_has_cause", "UPDATE requests SET state = 'failed' WHERE id = 1"),
            ("starts_are_counted", "UPDATE attempts SET nth = 1"),
            ("starts_are_counted", "UPDATE limits SET started = 0"),
            ("starts_are_in_order", "UPDATE attempts SET nth = 9 - nth, started_at_ms = nth"),
            ("tallies_agree", "UPDATE tallies SET pending = 7"),
            ("tallies_agree", "UPDATE tallies SET succeeded = 0"),
        ],
    )
    def test_a_broken_promise_is_named(self, asked, invariant, script):
        asked("run")
        change(f"{UNGUARDED}; {script};")
        ran = asked("check")
        assert (ran.code, ran.err) == (Exit.UNEXPECTED, "")
        assert f"BROKEN {invariant}: " in ran.out
        ran = asked("check", "--json")
        assert ran.code == Exit.UNEXPECTED
        broken = {row["name"]: row["examples"] for row in json.loads(ran.out) if row["broken"]}
        assert broken[invariant]


class TestErrors:
    @pytest.mark.parametrize(
        ("args", "code"),
        [
            (("nonsense",), Exit.USAGE),
            (("--nonsense",), Exit.USAGE),
            (("add",), Exit.USAGE),
            (("sql",), Exit.USAGE),
            (("run", "--deadline", "soon"), Exit.USAGE),
            (("run", "--concurrency", "0"), Exit.USAGE),
            (("run", "--concurrency", "9" * 30), Exit.USAGE),
            (("run", "--per-minute", "9" * 30), Exit.USAGE),
            (("run", "--prompt", "nope"), Exit.USAGE),
            (("run", "--provider", "nope"), Exit.USAGE),
            (("run", "--provider", "openai"), Exit.USAGE),
            (("run", "--provider", "local", "--model", "no.gguf"), Exit.CONFIGURATION),
            (("export", "--format", "xml"), Exit.USAGE),
            (("sql", "select\nnonsense"), Exit.USAGE),
            (("show", "no\nsuch\nword"), Exit.USAGE),
            (("show", "\ud800"), Exit.USAGE),
            (("retry", "\ud800"), Exit.USAGE),
            (("prompt", "show", "\ud800"), Exit.USAGE),
            (("--db", "other.db", "status"), Exit.CONFIGURATION),
        ],
    )
    def test_every_error_is_three_lines(self, asked, args, code):
        told(asked(*args), code)

    @pytest.mark.parametrize("command", ["ask", "seed", "show"])
    def test_several_words_where_one_is_meant_need_quotes(self, asked, command):
        _, cause, hint = told(asked(command, "a", "b c"), Exit.USAGE)
        assert "quoted" in cause
        assert hint == f'crawler {command} "a b c"'
        if command != "show":
            assert told(asked(command), Exit.USAGE)[1].startswith("Missing argument")

    @pytest.mark.parametrize("args", [(), ("prompt",), ("--debug",)])
    def test_who_names_no_command_sees_which_there_are(self, do, args):
        ran = do(*args)
        assert (ran.code, ran.err) == (Exit.DONE, "")
        assert "Commands:" in ran.out

    def test_what_is_mistyped_has_the_nearest_in_its_hint(self, do):
        found = told(do("exprt", "a b.csv"), Exit.USAGE)
        nearest = "the nearest is export", 'crawler export "a b.csv"'
        assert found == ("there is no command 'exprt'", *nearest)
        cause = told(do("run", "--promt", "define"), Exit.USAGE)[1]
        assert cause == "there is no option --promt; the nearest is --prompt"
        assert "No such command" in told(do("xyzzy"), Exit.USAGE)[1]

    def test_a_traceback_is_shown_to_who_asks_for_it(self, asked):
        ran = asked("--debug", "show", "nope")
        assert ran.code == Exit.USAGE
        assert ran.err.startswith("Traceback (most recent call last):\n")
        assert "\nerror: there is no word 'nope'\n" in ran.err

    def test_the_database_may_be_named_in_three_ways(self, do, monkeypatch):
        do("--db", "x.db", "add", "a")
        assert do("status", "--db", "x.db").code == Exit.DONE
        monkeypatch.setenv("CRAWLER_DB", "x.db")
        assert do("status").code == Exit.DONE
        told(do("--db", "y.db", "status"), Exit.CONFIGURATION)

    def test_who_reads_no_further_ends_it_quietly(self, asked):
        query = (
            "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
            " SELECT x FROM c LIMIT 500000"
        )
        with subprocess.Popen(
            [sys.executable, "-m", "crawler", "sql", "--csv", query],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == b"x\n"
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == Exit.DONE

    @pytest.mark.parametrize("args", [("--help",), ("add", "-h"), ("prompt", "add", "--help")])
    def test_help_is_help(self, do, args):
        ran = do(*args)
        assert (ran.code, ran.err) == (Exit.DONE, "")
        assert ran.out.startswith("Usage: crawler ")


class TestHostileText:
    @pytest.fixture
    def hostile(self, do, tmp_path):
        """Everything that others have written tries to take over the terminal."""
        model = HOSTILE.replace("\r", "")
        template = f"{{word}}{HOSTILE}{{answer}}{HOSTILE}"
        do(
            "prompt",
            "add",
            "p",  # a name like that is refused by now, and earlier files have some
            *SCRIPTED,
            template,
            "--model",
            model,
            "--limit",
            "q",  # likewise: it would be called after the model
            "--param",
            f"seed={HOSTILE}",
        )
        (tmp_path / "list.jsonl").write_text(json.dumps({"word": HOSTILE, "gloss": HOSTILE}))
        do("add", "list.jsonl", "--prompt", "p")
        assert do("run").code == Exit.DONE
        quoted = HOSTILE.replace("'", "''")
        change(
            f"DROP TRIGGER attempts_end_once; UPDATE attempts SET reason = '{quoted}';"
            f"DROP TRIGGER prompts_are_immutable; UPDATE prompts SET name = '{quoted}';"
            f"UPDATE runs SET host = '{quoted}', ended_at_ms = NULL, reason = NULL;"
            f"UPDATE limits SET name = '{quoted}', gate_reason = '{quoted}',"
            " gate_cause = 'quota', gate_opens_at_ms = 9000000000000, gate_strikes = 1;"
            f"INSERT INTO words (text, added_at_ms) VALUES ('x', 1);"
            "INSERT INTO requests (word_id, prompt_id) VALUES (2, 1);"
        )
        return do

    @pytest.mark.parametrize(
        "args",
        [
            ("show", HOSTILE),
            ("show", HOSTILE, "--json"),
            ("status",),
            ("status", "--json"),
            ("sql", "SELECT * FROM results"),
            ("sql", "SELECT text, fields FROM words"),
            ("sql", "--json", "SELECT * FROM results"),
            ("sql", "--jsonl", "SELECT * FROM results"),
            ("sql", f'SELECT 1 AS "{HOSTILE}"'),
            ("prompt", "list"),
            ("prompt", "list", "--json"),
            ("prompt", "show", HOSTILE),
            ("limit",),
            ("limit", "--json"),
            ("check",),
            ("export", "--format", "jsonl", "--prompt", HOSTILE),
        ],
    )
    def test_it_is_shown_and_not_obeyed(self, hostile, args):
        ran = hostile(*args)
        # A guard was taken away to get it in: check tells that.
        assert ran.code == (Exit.UNEXPECTED if args == ("check",) else Exit.DONE), ran
        assert not DANGEROUS.search(ran.out + ran.err)
        assert "52;c;ZXZpbA==" in ran.out or args[0] == "check"

    @pytest.mark.parametrize(
        "args",
        [
            ("show", f"{HOSTILE}x"),
            ("retry", f"{HOSTILE}x"),
            ("pause", f"{HOSTILE}x"),
            ("prompt", "show", f"{HOSTILE}x"),
            ("add", f"{HOSTILE}.csv"),
            ("sql", f'SELECT "{HOSTILE}" FROM nowhere'),
            ("sql", f"SELECT {HOSTILE}"),
            (f"{HOSTILE}",),
            ("--db", f"{HOSTILE}.db", "status"),
        ],
    )
    def test_nor_is_it_in_an_error(self, hostile, args):
        ran = hostile(*args)
        told(ran, ran.code)
        assert ran.code in (Exit.USAGE, Exit.CONFIGURATION)
        assert not DANGEROUS.search(ran.err)

    def test_nor_is_what_a_server_says(self, asked, monkeypatch):
        with server(401, HOSTILE.encode()) as url:
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            ran = asked("run", "--provider", "openai", "--model", "m")
        assert not DANGEROUS.search("".join(told(ran, Exit.DENIED)))

    def test_json_says_exactly_what_there_is(self, hostile):
        [row] = json.loads(hostile("sql", "--json", "SELECT word, text FROM results").out)
        assert row["word"] == HOSTILE
        assert row["text"].startswith(HOSTILE)
        assert json.loads(hostile("show", HOSTILE, "--json").out)[0]["text"] == row["text"]


@given(text=st.text(alphabet=st.one_of(st.characters(), st.sampled_from(HOSTILE))))
@example(text="\x7f")
def test_no_text_is_active_and_json_keeps_it_exactly(text):
    assert not DANGEROUS.search(printable(text))
    for indent in (None, 2):
        said = as_json({"k": text}, indent)
        assert not DANGEROUS.search(said)
        assert json.loads(said) == {"k": text}


@given(text=st.text(alphabet=st.one_of(st.characters(), st.sampled_from("a '\"$`\\!*~"))))
def test_a_quoted_text_is_one_word_to_the_shell(text):
    assert shlex.split(quoted(text)) == [printable(text)]


WHAT_IT_HAS_IMPORTED = """
import sys
from crawler.cli import main
try:
    main()
finally:
    heavy = {"aiosqlite", "asyncio", "pyreqwest", "rich", "structlog"}
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "args", [("--help",), ("status",), ("status", "--json"), ("sql", "select 1"), ("show", "a")]
)
def test_who_only_reads_imports_nothing_of_a_crawl(asked, args):
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IT_HAS_IMPORTED, *args], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (Exit.DONE, "[]\n")


def test_the_python_api_is_imported_without_what_it_needs_later():
    program = WHAT_IT_HAS_IMPORTED.replace("from crawler.cli import main", "main = __import__")
    program = program.replace("main()", "main('crawler')")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (Exit.DONE, "[]\n")


def test_it_runs_as_a_process_with_any_locale(asked):
    ran = crawler_process("sql", "--csv", "select 'é'", env={"LC_ALL": "C", "LANG": "C"})
    assert (ran.code, ran.out) == (Exit.DONE, "'é'\né\n")
