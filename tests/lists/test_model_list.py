"""Lists as models write them: what is kept, what is left out and why, whatever the text."""

import json
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler.lists.model_list import CUT_OFF, REPEATED, SENTENCE, TOO_LONG, read_items
from crawler.lists.words import word_of

THREE = ["abate", "aberrant", "abeyance"]


def kept(text, *, truncated=False):
    return read_items(text, truncated=truncated).kept


@pytest.mark.parametrize(
    "text",
    [
        "abate, aberrant, abeyance",
        "abate,aberrant,abeyance",
        "abate, aberrant, abeyance.",
        "abate, aberrant, and abeyance.",
        "abate, aberrant, & abeyance",
        "abate, aberrant and abeyance.",
        "abate; aberrant; abeyance;",
        "abate, aberrant,\nabeyance",
        "abate\naberrant\nabeyance\n",
        "abate\r\n\r\naberrant\r\n\r\nabeyance",
        "abate,\naberrant,\nabeyance.",
        "1. abate\n2. aberrant\n3. abeyance",
        "1) abate\n2) aberrant\n3) abeyance",
        "(1) abate (2) aberrant (3) abeyance",
        "(1) abate, (2) aberrant, (3) abeyance",
        "1. abate 2. aberrant 3. abeyance",
        "1.abate\n2.aberrant\n3.abeyance",
        "a) abate\nb) aberrant\nc) abeyance",
        "- abate\n- aberrant\n- abeyance",
        "* abate\n* aberrant\n* abeyance",
        "• abate\n• aberrant\n  ◦ abeyance",
        "– abate\n– aberrant\n– abeyance",
        "1. **abate**\n2. *aberrant*\n3. `abeyance`",
        "**abate**, __aberrant__, _abeyance_",
        "\"abate\", 'aberrant', “abeyance”",
        "‘abate’, «aberrant», „abeyance“",
        "Abate, Aberrant, Abeyance",
        "ABATE\nABERRANT\nABEYANCE",
        "Sure! Here are 3 GMAT words:\n\nabate, aberrant, abeyance",
        "Sure, here are three words: abate, aberrant, abeyance",
        "Of course, here are three words: abate, aberrant, abeyance.",
        "Certainly! Below is a list of GMAT words.\n\n1. abate\n2. aberrant\n3. abeyance",
        "GMAT words: abate, aberrant, abeyance",
        "# GMAT words\n\n- abate\n- aberrant\n- abeyance",
        "**GMAT words:**\n- abate\n- aberrant\n- abeyance",
        "abate, aberrant, abeyance\n\nI hope this helps!",
        "abate, aberrant, abeyance. Let me know if you need more!",
        "- abate\n- aberrant\n- abeyance\n\nWould you like me to define them?",
        "abate\naberrant\nabeyance\n\nNote: these words often come up in tests.",
        "abate\naberrant\nabeyance\nThese words are a good start, and you may ask for more.",
        "abate - to lessen\naberrant - odd, strange\nabeyance - a pause",
        "1. Abate – to lessen, to reduce\n2. Aberrant – odd\n3. Abeyance – a pause.",
        "**Abate**: to become less\n**Aberrant**: odd\n**Abeyance**: a pause",
        "- **Abate:** to become less, subside\n- **Aberrant:** odd\n- **Abeyance:** a pause",
        "abate—to lessen\naberrant—odd\nabeyance—a pause",
        "abate (verb)\naberrant (adj.)\nabeyance (noun, formal)",
        "abate (to lessen, to reduce), aberrant (odd), abeyance (a pause)",
        "abate: to lessen, reduce; aberrant: odd, strange; abeyance: a pause",
        "abate - lessen, aberrant - odd, abeyance - pause",
        '["abate", "aberrant", "abeyance"]',
        '{"words": ["abate", "aberrant", "abeyance"]}',
        '{"count": 3, "words": ["abate", "aberrant", "abeyance"], "done": true}',
        '[{"word": "abate", "gloss": "x"}, {"word": "aberrant"}, {"word": "abeyance"}]',
        '```json\n["abate", "aberrant",\n "abeyance"]\n```',
        'Here you are:\n```\n{"words": ["abate", "aberrant", "abeyance"]}\n```\nGood luck!',
        'Here is the list: ["abate", "aberrant", "abeyance"]',
        "```\nabate, aberrant, abeyance\n```",
        "\ufeffabate, \u200baberrant, abeyance\u202e",
        "abate、aberrant，abeyance",
        "abate, , ,, aberrant,\n\n,abeyance ...",
    ],
)
def test_three_words_are_three_words_however_they_are_written(text):
    items = read_items(text, truncated=False)
    assert items.kept == THREE
    assert {reason for _, reason in items.left_out} <= {SENTENCE}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ad hominem, non sequitur, vis-a-vis", ["ad hominem", "non sequitur", "vis-a-vis"]),
        ("don't, rock 'n' roll, O'Neill", ["don't", "rock 'n' roll", "O'Neill"]),
        ("New York, Paris, Rome", ["New York", "Paris", "Rome"]),
        ("Abate, zeal, Ox", ["Abate", "zeal", "Ox"]),
        ("Paris, Rome", ["Paris", "Rome"]),
        ("McCarthyism, Marxism, Leninism", ["McCarthyism", "Marxism", "Leninism"]),
        ("St. Louis, Dr. No", ["St. Louis", "Dr. No"]),
        ("trial and error, black and white", ["trial and error", "black and white"]),
        ("1984, 2 fast, 3:10", ["1984", "2 fast", "3:10"]),
        ("naïve, cafe\u0301, Ünder", ["naïve", "café", "Ünder"]),
        ("仁, 礼、 義", ["仁", "礼", "義"]),
        ("abate", ["abate"]),
        ("", []),
        (" \n,;.\n- \n", []),
        ("42. answer", ["answer"]),
        ("1984.", ["1984"]),
        ("1), (a)", ["1", "a"]),
        ("chaos, trial and error", ["chaos", "trial and error"]),
        ("“1. abate”, “2. zeal”", ["abate", "zeal"]),
        ("abate (a verb, zeal", ["abate", "zeal"]),
        ("[1] abate, [2] zeal", ["1] abate", "2] zeal"]),
    ],
)
def test_a_term_stays_whole(text, terms):
    assert kept(text) == terms


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("abate, zeal, Abate, ABATE", [("Abate", REPEATED), ("ABATE", REPEATED)]),
        ("abate, " + "x" * 81, [("x" * 81, TOO_LONG)]),
        (
            "abate, one two three four five six seven",
            [("one two three four five six seven", TOO_LONG)],
        ),
        ("Sure! Here are words:\nabate", [("Sure! Here are words:", SENTENCE)]),
        ("## Verbs\nabate", [("## Verbs", SENTENCE)]),
        ("abate. Let me know if it helps.", [("Let me know if it helps.", SENTENCE)]),
        ("abate, let me know", [("let me know", SENTENCE)]),
        (
            "abate\nI am sorry that I could not find any more of them.",
            [("I am sorry that I could not find any more of them.", SENTENCE)],
        ),
    ],
)
def test_what_is_left_out_has_a_reason(text, left_out):
    items = read_items(text, truncated=False)
    assert items.kept[0] == "abate"
    assert items.left_out == left_out


def test_a_fence_is_no_part_of_a_list():
    for text in ("```\nabate, zeal\n```", '```json\n["abate", "zeal"]\n```'):
        assert read_items(text, truncated=False) == (["abate", "zeal"], [])


@pytest.mark.parametrize(
    ("text", "terms", "half"),
    [
        ("abate, zeal, aber", ["abate", "zeal"], "aber"),
        ("abate, zeal,", ["abate", "zeal"], None),
        ("abate, zeal, ", ["abate", "zeal"], None),
        ("1. abate\n2. zeal\n3. aber", ["abate", "zeal"], "aber"),
        ("abate\nzeal\n", ["abate", "zeal"], None),
        ('["abate", "zeal", "ab', ["abate", "zeal"], "ab"),
        ('["abate", "zeal"]', ["abate", "zeal"], None),
        ("ab", [], "ab"),
        ("", [], None),
    ],
)
def test_the_last_piece_of_a_text_that_is_cut_off_is_left_out(text, terms, half):
    items = read_items(text, truncated=True)
    assert items.kept == terms
    assert [reason for _, reason in items.left_out] == ([CUT_OFF] if half else [])
    assert half is None or half in items.left_out[0].text


syllable = st.text(alphabet="abcdefghijklmnoprstuvwxyzàéñößøжλ", min_size=2, max_size=9)
joined = st.builds("{}{}{}".format, syllable, st.sampled_from(["", "-", "'"]), syllable)
OPENERS = ("and ", "hope ", "please ", "if you", "i ", "note ", "tip ")
term = (
    st.lists(joined, min_size=1, max_size=3)
    .map(" ".join)
    .filter(lambda text: not text.startswith(OPENERS))
)
terms = st.lists(term, min_size=2, max_size=12, unique_by=str.casefold)

STYLES = {
    "commas": ", ".join,
    "semicolons": "; ".join,
    "lines": "\n".join,
    "full stop": lambda items: ", ".join([*items[:-1], f"and {items[-1]}."]),
    "numbers": lambda items: "\n".join(f"{n}. {item}" for n, item in enumerate(items, 1)),
    "brackets": lambda items: " ".join(f"({n}) {item}" for n, item in enumerate(items, 1)),
    "bullets": lambda items: "\n".join(f"* {item}" for item in items),
    "bold": lambda items: "\n".join(f"- **{item}**" for item in items),
    "quotes": lambda items: ", ".join(f"“{item}”" for item in items),
    "code": lambda items: "\n".join(f"`{item}`" for item in items),
    "definitions": lambda items: "\n".join(f"**{item}**: a word, or two" for item in items),
    "dashes": lambda items: "\n".join(f"{n}) {item} – what; it is" for n, item in enumerate(items)),
    "JSON": json.dumps,
    "fence": lambda items: f"```json\n{json.dumps({'items': items}, indent=2)}\n```",
    "talk": lambda items: f"Sure! Here are some terms:\n\n{', '.join(items)}\n\nI hope this helps!",
}


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40)
@given(items=terms)
def test_a_list_comes_back_as_it_was_in_any_style(style, items):
    assert kept(STYLES[style](items)) == items


pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*list("()[]{}*`_,;:.!?-—\"'#0aB \n"), "and ", "1. ", " - ", ": ", "Sure! ", '["']
    ),
    term,
)


@given(text=st.lists(pieces, max_size=14).map("".join), truncated=st.booleans())
@example(text="x. *y z w", truncated=False)
@example(text="a(b\ncc)d", truncated=False)
@example(text='x ["y"] z', truncated=False)
@example(text="İ, Ab, Cd", truncated=False)
def test_any_text_is_a_list_of_terms_and_reading_it_again_changes_nothing(text, truncated):
    found = kept(text, truncated=truncated)
    assert kept(", ".join(found)) == found
    for item in found:
        assert 0 < len(item) <= 80
        assert word_of(item, {}) == (item, {})
        for char in (item[0], item[-1]):
            assert unicodedata.category(char)[0] not in "CPZ"
        assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in item)
    assert len({item.casefold() for item in found}) == len(found)


@given(text=st.text(alphabet="ab1é ,;\n.:-*!#", min_size=1, max_size=30))
def test_what_has_a_letter_is_kept_or_left_out_with_a_reason(text):
    items = read_items(text, truncated=False)
    assert bool(items.kept or items.left_out) == any(map(str.isalnum, text))


@pytest.mark.parametrize("unit", [",", "(", " ", "`", "- ", ". ", "a ", "[", "and ", "*"])
def test_a_megabyte_of_anything_takes_no_time(unit):
    began = time.process_time()
    read_items(unit * (1_000_000 // len(unit)), truncated=True)
    assert time.process_time() - began < 1.5
