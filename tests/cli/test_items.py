"""Words off the list and back on it, answers that are asked again, and prompts that are edited."""

import csv
import io
import itertools
import json
import shlex

import pytest

from crawler.cli import prompt_edit, selecting
from crawler.errors import Exit
from crawler.storage import database
from tests.program import crawler, rows, told

ASKED = ("--template", "About {word}", "--provider", "scripted")


@pytest.fixture
def do(tmp_path, monkeypatch):
    """A file with a prompt and three words that have an answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_DB", raising=False)
    crawler("prompt", "add", "define", *ASKED)
    crawler("add", "abate", "gost", "zeal")
    assert crawler("run").code == Exit.DONE
    yield crawler
    checked = crawler("check")
    assert checked.code == Exit.DONE, checked.out


def exported(*args):
    """Return word, state, version and staleness of what is exported."""
    rows = csv.DictReader(io.StringIO(crawler("export", *args).out))
    return [(row["word"], row["state"], row["version"], row["stale"]) for row in rows]


def edit(template="On {word}", *args):
    return crawler("prompt", "edit", "define", "--template", template, *args)


def test_a_word_that_is_removed_is_out_of_sight_and_its_answer_is_kept(do):
    ran = do("remove", "gost")
    assert ran.err == "1 word removed from define; undo: crawler add gost --prompt define\n"
    assert [word for word, *_ in exported("--all")] == ["abate", "zeal"]
    assert "2 requests, 2 succeeded" in do("status").out
    assert "gost" not in do("sql", "select word from results").out
    assert "removed at" in do("show", "gost").out
    assert do("sql", "select count(*) as n from responses").out == "n\n3\n"


def test_a_list_does_not_bring_back_what_was_removed_and_who_types_it_does(do, tmp_path):
    (tmp_path / "words.txt").write_text("gost\nnew\n")
    do("remove", "gost")
    assert do("add", "words.txt").err == (
        "1 added to define version 1 (scripted, scripted), 1 known already\n"
        "1 was removed and stays so; who types a word brings it back: crawler add WORD\n"
    )
    assert do("add", "-", stdin="gost\n").err.endswith("crawler add WORD\n")
    assert do("add", "gost").err.endswith("1 on the list again, with what was answered\n")
    assert exported()[1:] == [("gost", "succeeded", "1", ""), ("zeal", "succeeded", "1", "")]


def test_what_waits_and_is_removed_is_not_asked_and_waits_again_when_it_is_typed(do):
    do("add", "new", "newer")
    assert do("remove", "--state", "pending").err.startswith("2 words removed from define;")
    assert do("run").code == Exit.DONE
    assert len(exported("--all")) == 3
    assert do("ask", "newer").out.startswith("Newer: "), "to ask is to type it"
    do("add", "--", "new")
    assert exported("--all")[-2] == ("new", "pending", "1", "")


def test_a_prompt_that_is_removed_is_not_asked_nor_shown_until_it_is_back(do):
    do("prompt", "add", "other", *ASKED)
    do("add", "abate", "--prompt", "other")
    assert do("prompt", "remove", "other").err == (
        "other removed; undo: crawler prompt edit other --to 1\n"
    )
    assert "other" not in do("status").out + do("prompt", "list").out
    assert do("run").code == Exit.DONE
    assert "other" not in do("sql", "select prompt from results").out
    assert "other" not in do("sql", "select prompt from progress").out
    what, _, hint = told(do("export", "--prompt", "other"), Exit.USAGE)
    assert (what, hint) == ("the prompt 'other' is removed", "crawler prompt edit other --to 1")
    assert exported(), "the only one there is"
    do("prompt", "edit", "other", "--to", "1")
    do("run")
    assert exported("--prompt", "other") == [("abate", "succeeded", "1", "")]
    do("prompt", "remove", "other")
    assert do("prompt", "add", "other", *ASKED).err == "other version 1 is the current one\n"
    assert exported("--prompt", "other") == [("abate", "succeeded", "1", "")]


def test_where_the_only_prompt_is_removed_no_other_is_asked_in_its_place(do):
    do("prompt", "remove", "define")
    for args in (("ask", "abate"), ("add", "new"), ("export",)):
        what, _, hint = told(do(*args), Exit.USAGE)
        assert what == "the prompt 'define' is removed"
        assert hint == "crawler prompt edit define --to 1"
    assert rows("crawl.db", "SELECT name FROM prompts") == [("define",)]


def test_an_answer_that_is_asked_again_counts_until_the_new_one_is_there(do):
    assert do("retry", "abate").err == (
        "1 answer is asked again; the old one counts until then. Next: crawler run\n"
    )
    assert exported() == [
        ("abate", "pending", "1", ""),
        ("gost", "succeeded", "1", ""),
        ("zeal", "succeeded", "1", ""),
    ]
    assert do("retry", "abate").err == "1 waits already\n"
    do("run")
    assert exported()[0] == ("abate", "succeeded", "1", "")
    assert do("sql", "select count(*) as n from responses").out == "n\n4\n"
    assert do("show", "abate").out.count("succeeded after") == 2


def test_what_is_asked_again_keeps_its_place_in_the_view_of_results(do):
    do("retry", "abate")
    do("run")
    assert do("sql", "select word from results").out == "word\nabate\ngost\nzeal\n"


def test_a_removed_word_is_not_asked_again_and_is_back_when_it_is_asked_about(do):
    do("remove", "gost")
    assert told(do("retry", "gost"), Exit.USAGE)[0] == "none of these words is selected"
    assert do("ask", "gost").out.startswith("Gost: ")
    assert len(exported()) == 3
    edit()
    assert do("ask", "gost").err.endswith("stale: crawler retry gost asks again\n")


def test_words_come_from_a_file_or_a_pipe_and_an_empty_one_is_an_error(do, tmp_path):
    (tmp_path / "some.txt").write_text("abate\n\nzeal\r\n")
    assert do("retry", "@some.txt").err.startswith("2 answers are asked again")
    assert do("retry", "-", stdin="gost\n").err.startswith("1 answer is asked again")
    what, cause, _ = told(do("remove", "-", stdin="\n"), Exit.USAGE)
    assert what == "there is no word in standard input"
    assert cause.startswith("a selection that is empty changes nothing")
    assert told(do("remove", "@none.txt"), Exit.USAGE)[0] == "the words of none.txt can't be read"
    assert len(exported()) == 3


def test_a_word_that_is_not_there_changes_nothing_and_the_nearest_is_named(do):
    what, cause, hint = told(do("remove", "abate", "zeel"), Exit.USAGE)
    assert what == "there is no word 'zeel'"
    assert cause.endswith("nothing was changed; the nearest is zeal")
    assert hint == "crawler add zeel"
    assert len(exported()) == 3
    assert do("remove").code == Exit.USAGE
    assert do("remove", "--failed").err == "no word was removed: none is selected\n"
    assert do("retry", "--state", "pendign").code == Exit.USAGE


@pytest.mark.parametrize(
    "args",
    [
        ("retry", "gost"),
        ("mark", "bad", "gost"),
        ("remove", "gost"),
        ("run", "gost"),
        ("remove", "abate", "--failed"),
        ("run", "abate", "--failed"),
    ],
)
def test_who_names_words_and_hits_none_is_told_so_by_the_exit_code(do, args):
    do("remove", "gost")
    before = do("sql", "select * from requests").out
    what, cause, hint = told(do(*args), Exit.USAGE)
    assert what == "none of these words is selected"
    assert "nothing was changed" in cause
    assert args[-1 if args[-1] == "gost" else 1] in hint
    assert do("sql", "select * from requests").out == before


def test_an_empty_state_is_an_error_and_selects_nothing(do):
    do("add", "new")
    for command in ("run", "retry", "remove", "export"):
        assert do(command, "--state", "").code == Exit.USAGE
    assert exported("--state", "pending") == [("new", "pending", "1", "")]


def test_an_export_of_nothing_that_is_selected_leaves_no_file(do, tmp_path):
    (tmp_path / "there.csv").write_text("mine\n")
    for name in ("new.csv", "there.csv"):
        ran = do("export", name, "--stale", "--force")
        assert (ran.code, ran.out) == (0, "")
        assert ran.err == f"none is selected; {name} was not written\n"
    assert not (tmp_path / "new.csv").exists()
    assert (tmp_path / "there.csv").read_text() == "mine\n"
    assert exported("--stale") == []


def test_an_edited_prompt_asks_what_waits_and_its_answers_are_stale(do):
    do("add", "new")
    assert edit().err == (
        "define version 2: template; undo: crawler prompt edit define --to 1\n"
        "1 word waits for it. 3 answers of other versions stay and are stale (ask again: crawler"
        " retry --stale)\n"
    )
    do("run")
    assert exported() == [
        ("abate", "succeeded", "1", "yes"),
        ("gost", "succeeded", "1", "yes"),
        ("zeal", "succeeded", "1", "yes"),
        ("new", "succeeded", "2", ""),
    ]
    assert do("retry", "--stale", "--first", "2").err.startswith("2 answers are asked again;")
    do("run")
    assert [version for *_, version, _ in exported()] == ["2", "2", "1", "2"]
    assert do("run").code == Exit.DONE
    assert do("sql", "select count(*) as n from attempts").out == "n\n6\n", "nothing else is asked"


def test_an_edit_is_undone_at_no_cost(do):
    edit()
    do("retry", "--stale", "--first", "2")
    do("run", "--limit", "1")
    before = do("sql", "select count(*) as n from attempts").out
    assert do("prompt", "edit", "define", "--to", "1").err == (
        "define version 1: template; undo: crawler prompt edit define --to 2\n0 words wait for it\n"
    )
    assert exported() == [(word, "succeeded", "1", "") for word in ("abate", "gost", "zeal")]
    do("run")
    assert do("sql", "select count(*) as n from attempts").out == before
    do("prompt", "edit", "define", "--to", "2")
    assert exported()[0] == ("abate", "succeeded", "2", "")


def asked():
    return crawler("sql", "select count(*) as n from attempts").out


def test_a_version_that_has_answered_does_not_ask_again_after_two_edits(do):
    edit()
    do("retry", "gost")
    do("run")
    edit("Of {word}")
    do("retry", "gost")
    before = asked()
    assert do("prompt", "edit", "define", "--to", "1").err.endswith("\n0 words wait for it\n")
    do("run")
    assert asked() == before
    assert exported()[1] == ("gost", "succeeded", "1", "")


def test_what_is_on_the_list_again_has_the_answer_of_the_version_that_is_asked(do):
    edit()
    do("retry", "gost")
    do("run")
    do("remove", "gost")
    do("prompt", "edit", "define", "--to", "1")
    do("add", "gost")
    assert exported()[1] == ("gost", "succeeded", "1", "")
    do("prompt", "edit", "define", "--to", "2")
    do("retry", "zeal")
    do("remove", "zeal")
    do("prompt", "edit", "define", "--to", "1")
    do("add", "zeal")
    before = asked()
    do("run")
    assert asked() == before
    assert exported()[2] == ("zeal", "succeeded", "1", "")


def test_a_prompt_is_not_changed_by_adding_another_of_its_name(do):
    what, cause, hint = told(
        do("prompt", "add", "define", "--template", "On {word}", "--provider", "scripted"), 2
    )
    assert what == "there is a prompt 'define' already, and it asks something else"
    assert "has answered stays" in cause
    assert hint == 'crawler prompt edit define --template "On {word}" --provider scripted'
    assert do("prompt", "add", "define", *ASKED).err == "define version 1 is the current one\n"
    edit()
    assert told(do("prompt", "add", "define", *ASKED), 2)[2] == (
        "crawler prompt edit define --to 1"
    )


def test_an_edit_says_only_what_changes(do):
    do("prompt", "edit", "define", "--param", "seed=1", "--param", "top_p=0.5")
    done = do("prompt", "edit", "define", "--unset-param", "seed", "--model", "m2")
    assert done.err.startswith("define version 3: model scripted → m2, parameter seed; undo:")
    (current,) = [row for row in json.loads(do("prompt", "list", "--json").out) if row["current"]]
    assert (current["template"], current["params"]) == ("About {word}", {"top_p": 0.5})
    assert do("prompt", "edit", "define").code == Exit.USAGE
    assert do("prompt", "edit", "define", "--to", "9").code == Exit.USAGE
    assert do("prompt", "edit", "define", "--to", "1", "--model", "x").code == Exit.USAGE
    assert told(do("prompt", "edit", "define", "--unset-param", "x"), 2)[0] == (
        "there is no parameter 'x' to leave out"
    )
    assert do("prompt", "edit", "nobody", "--model", "x").code == Exit.USAGE
    assert do("prompt", "edit", "define", "--model", "m2").err == (
        "define version 3 is the current one\n"
    )


def test_what_has_failed_under_an_older_version_is_asked_by_the_new_one(do):
    do("add", "half")
    edit("Of {word}", "--param", 'errors={"blocked": 1}')
    assert do("run").code == Exit.SOME_FAILED
    edit("On {word}", "--unset-param", "errors")
    assert exported("--all")[-1] == ("half", "failed", "2", "")
    assert do("run").code == Exit.DONE
    assert do("retry", "--failed").err.startswith("1 failed request is pending again")
    do("run")
    assert exported("--all")[-1] == ("half", "succeeded", "3", "")


def test_show_and_export_take_the_same_selectors(do, tmp_path):
    do("add", "maim")
    edit("Of {word}", "--param", 'errors={"blocked": 1}')
    assert do("run").code == Exit.SOME_FAILED
    do("retry", "abate")
    assert exported("--failed") == [("maim", "failed", "2", "")]
    assert [word for word, *_ in exported("--stale")] == ["abate", "gost", "zeal"]
    assert [word for word, *_ in exported("--stale", "--first", "1")] == ["abate"]
    assert exported("--state", "pending") == [("abate", "pending", "1", "yes")]
    lines = do("show", "--failed").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:5] == ["maim", "define", "version", "2", "failed"]
    shown = json.loads(do("show", "--stale", "--json").out)
    assert [(row["word"], row["stale"]) for row in shown][1:] == [("gost", True), ("zeal", True)]
    assert len(do("show").out.splitlines()) == 5, "the last calls"


def test_a_run_of_some_words_asks_no_others(do):
    do("add", "new", "newer", "newest")
    assert do("run", "--first", "1").code == Exit.DONE
    assert [word for word, *_ in exported("--state", "pending")] == ["newer", "newest"]
    assert do("run", "newest").code == Exit.DONE
    assert [word for word, *_ in exported("--state", "pending")] == ["newer"]
    ran = do("run", "abate")
    assert ran.code == Exit.DONE
    assert "none of these words waits: crawler retry lets words wait again" in ran.err
    assert told(do("run", "nobody"), Exit.USAGE)[0] == "there is no word 'nobody'"
    assert do("sql", "select count(*) as n from attempts").out == "n\n5\n"
    assert do("run", "--failed").code == Exit.DONE


@pytest.mark.parametrize(
    "options", [("--model", "m2"), ("--per-minute", "7"), ("--concurrency", "3")]
)
def test_a_run_that_is_refused_has_changed_nothing(do, options):
    def on_record():
        return do("prompt", "list", "--json").out, do("limit", "--json").out

    before = on_record()
    assert told(do("run", "--prompt", "define", *options, "typo"), 2)[0].startswith("there is no w")
    assert on_record() == before


@pytest.fixture
def at_once(do, monkeypatch):
    """Return a function that runs the program, and gives the most requests it changed at once."""
    for module in (selecting, prompt_edit):
        monkeypatch.setattr(module, "PART", 2)

    def on_record():
        return {
            request_id: (state, superseded, removed, marks)
            for request_id, state, superseded, removed, marks in rows(
                "crawl.db",
                "SELECT id, state, superseded, removed_at_ms,"
                " (SELECT count(*) FROM reviews WHERE request_id = requests.id) FROM requests",
            )
        }

    def run(*args):
        seen = [on_record()]

        def look(where):
            if where == "after_commit":
                seen.append(on_record())

        with monkeypatch.context() as patched:
            patched.setattr(database, "failpoint", look)
            assert do(*args).code == Exit.DONE
        assert seen[0] != seen[-1]
        return max(
            sum(after.get(request_id) != known for request_id, known in before.items())
            for before, after in itertools.pairwise(seen)
        )

    return run


def test_many_words_are_changed_in_transactions_for_which_a_crawl_has_to_wait(do, at_once):
    do("add", *"abcdef")
    do("run")
    assert at_once("mark", "bad", "--state", "succeeded") == 2
    assert at_once("retry", "--state", "succeeded") == 2
    do("run")
    edit()
    assert at_once("retry", "--stale") == 2
    do("run")
    assert at_once("prompt", "edit", "define", "--to", "1") == 4, "an answer for another, twice"
    assert at_once("remove", "--state", "succeeded") == 2


def pasted(ran):
    """Run what a command says of how to undo it."""
    _, _, undo = ran.err.partition("; undo: crawler ")
    assert undo, ran
    for command in undo.strip().split(" && crawler "):
        assert crawler(*shlex.split(command)).code == Exit.DONE


@pytest.mark.parametrize(
    "words", [["-x"], ["and/or"], ["list.csv", "zeal"], [f"v{n}" for n in range(12)]]
)
def test_the_way_back_of_a_removal_can_be_pasted(do, words):
    do("add", "--", *words)
    do("add", "--", "other")
    before = exported("--all")
    ran = do("remove", "--", *words)
    assert len(exported("--all")) == len(before) - len(words)
    pasted(ran)
    assert exported("--all") == before


def test_a_removal_of_very_many_words_says_how_to_find_them(do):
    words = [f"v{n}" for n in range(30)]
    do("add", *words)
    ran = do("remove", "--state", "pending")
    assert "WORD" not in ran.err
    _, _, asked = ran.err.partition("which they are: crawler ")
    assert do(*shlex.split(asked)).out.split()[1:] == words


def test_of_words_with_one_text_the_way_back_names_the_one_that_was_removed(do, tmp_path):
    (tmp_path / "k.csv").write_text("word,pos\nbank,noun\nbank,verb\nbank,\n")
    do("add", "k.csv", "--key", "word,pos")
    do("remove", "bank/verb")
    before = exported("--all")
    pasted(do("remove", "bank/noun"))
    assert exported("--all") == before


def test_the_way_back_of_a_mark_is_the_mark_before_of_the_same_prompt(do):
    do("prompt", "add", "other", *ASKED)
    do("add", "abate", "zeal", "--prompt", "other")
    do("run")
    do("mark", "good", "abate", "--note", "it's fine")
    do("mark", "bad", "zeal", "--prompt", "other")
    marks = "select word, prompt, review, note from results"
    before = do("sql", marks).out
    ran = do("mark", "bad", "abate", "zeal", "--prompt", "define", "--note", "x")
    assert do("sql", marks).out != before
    pasted(ran)
    assert do("sql", marks).out == before
    pasted(do("mark", "none", "abate", "zeal"))
    assert do("sql", marks).out == before
