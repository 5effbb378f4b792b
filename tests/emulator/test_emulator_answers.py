"""What an emulated model says of a word, and what becomes of a request: pure functions."""

import json
from collections import Counter

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.cli.builtin import list_word, word_list
from crawler.emulator.answers import (
    JSON_BY_DEFAULT,
    LARGE_CHARS,
    MARK,
    Answer,
    Question,
    answer,
    glosses,
    spoilt,
    tokens_in,
    word_of,
)
from crawler.emulator.fate import fate
from crawler.emulator.settings import ANSWERS, FINISHES, KINDS, STATUSES, Settings, WordFault
from crawler.template import Template

PLENTY = 8_000


def said(prompt, most_tokens=PLENTY, schema=None):
    return answer(Question(prompt, most_tokens, schema), word_of(prompt))


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ('Define "ennui", not "laconic".', "ennui"),
        ("Define laconic, please; not abrogate but Mendacious!", "mendacious"),
        ("Define ennui.", "ennui"),
        ("What is a mot-juste?", "mot-juste"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_a_prompt_is_about_what_it_quotes_else_a_known_word_else_its_last(prompt, word):
    assert word_of(prompt) == word


@pytest.mark.parametrize("so_far", [[], ["cod", "eel"]])
@pytest.mark.parametrize("count", [None, 7])
@pytest.mark.parametrize("topic", ["fish", 'words like "abate"', "U.S. states. All of them"])
def test_a_list_is_about_its_topic_from_its_beginning_or_further_on(topic, count, so_far):
    part = list_word(topic, count, so_far)
    template = Template(word_list("vertex", "m", {}).template)
    assert word_of(template.render(part.text, part.fields).prompt) == topic


def test_every_word_of_the_sample_is_explained_in_whole_sentences_that_use_it():
    for word, gloss in glosses().items():
        definition, sentence = said(f'Define "{word}".').text.splitlines()

        assert definition == f"{MARK} Definition: {gloss.text}"
        assert word in sentence
        assert sentence.endswith(".")
        assert "to to " not in sentence


def test_an_answer_is_cut_off_where_it_may_not_be_longer():
    whole = said('Define "abrogate".')

    assert said('Define "abrogate".', tokens_in(whole.text)) == whole
    assert said('Define "abrogate".', 5) == Answer(whole.text[:20], "MAX_TOKENS")


def test_a_list_has_as_many_words_as_were_asked_for_and_goes_on_after_a_word():
    words = list(glosses())

    assert said("A list of 5 GMAT words, please").text == ", ".join(words[:5])
    assert said("List 3 words after abjure.").text == ", ".join(words[3:6])
    assert said('List 2 words; go on after "abno".').text == "abrogate, abscond"
    assert said(f"List 2 words after {words[-1]}").text == ", ".join(words[:2])
    assert said("List 1000 words").text.split(", ") == (words * 3)[:1000]


def test_a_list_that_is_too_long_ends_in_mid_word():
    cut = said("List 50 words", 10)

    assert cut == Answer("aberrant, abeyance, abjure, abnegate, ab", "MAX_TOKENS")


def test_json_has_the_properties_of_the_schema_in_the_types_it_asks_for():
    schema = {
        "type": "OBJECT",
        "properties": {
            "word": {"type": "STRING"},
            "definition": {"type": "string"},
            "mnemonic": {"type": ["string", "null"]},
            "register": {"type": "STRING", "enum": ["formal", "plain"]},
            "origin": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "part_of_speech": {"type": "string"},
            "syllables": {"type": "INTEGER"},
            "weight": {"type": "number"},
            "is_rare": {"type": "BOOLEAN"},
            "examples": {"type": "array", "items": {"type": "string"}},
            "forms": {"properties": {"noun": {}}},
            "nothing": {"type": "null"},
        },
    }

    assert json.loads(said('Explain "abrogate".', schema=schema).text) == {
        "word": "abrogate",
        "definition": f"{MARK} revoke formally",
        "mnemonic": f"{MARK} Whoever learns to abrogate learns to revoke formally.",
        "register": "formal",
        "origin": f"{MARK} origin of abrogate",
        "part_of_speech": "verb",
        "syllables": 1,
        "weight": 1,
        "is_rare": True,
        "examples": [f"{MARK} Whoever learns to abrogate learns to revoke formally."],
        "forms": {"noun": f"{MARK} noun of abrogate"},
        "nothing": None,
    }


def test_json_that_nobody_described_has_a_definition_and_a_mnemonic():
    found = json.loads(said("Explain laconic", schema=JSON_BY_DEFAULT).text)

    assert set(found) == {"definition", "mnemonic"}


@pytest.mark.parametrize("fault", FINISHES)
def test_a_refusal_has_its_reason_and_no_content(fault):
    assert spoilt(Answer("text", "STOP"), fault, 100) == Answer(None, fault.upper())


def test_odd_answers():
    good = said("Explain laconic", schema=JSON_BY_DEFAULT)
    odd = {fault: spoilt(good, fault, 100) for fault in ANSWERS}

    assert odd["blocked"] == Answer(None, None, blocked=True)
    assert odd["no_candidates"] == Answer(None, None)
    assert odd["empty"] == Answer("", "STOP")
    assert odd["truncated"] == Answer(good.text[: len(good.text) // 2], "MAX_TOKENS")
    assert odd["thoughts"][:2] == good[:2]
    assert odd["thoughts"].thought
    assert len(odd["large"].text) > LARGE_CHARS > 4 * 2**20
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(odd["bad_json"].text)
    assert spoilt(good, None, 100) == spoilt(good, "slow", 100) == good


def test_there_is_a_fault_for_every_code_of_grpc():
    assert set(STATUSES) == {code.name.lower() for code in grpc.StatusCode} - {"ok"}


@given(st.integers(), st.text(), st.integers(1, 1_000))
def test_a_fate_depends_on_seed_word_and_number_alone(seed, word, nth):
    settings = Settings(seed=seed, latency_ms=100, jitter_ms=40, faults={"hang": 0.5})

    drawn = fate(settings, word, nth)

    assert drawn == fate(settings, word, nth)
    assert 60 <= drawn.latency_ms <= 140


def test_faults_come_as_often_as_they_are_to_and_differ_by_seed_and_number():
    rates = {"unavailable": 0.2, "safety": 0.1}
    drawn = {
        seed: [
            fate(Settings(seed=seed, faults=rates), f"w{n}", 1 + n % 2).fault for n in range(5000)
        ]
        for seed in (1, 2)
    }

    for faults in drawn.values():
        counts = Counter(faults)
        assert 900 < counts["unavailable"] < 1_100
        assert 420 < counts["safety"] < 580
    assert drawn[1] != drawn[2]
    always = Settings(faults=dict.fromkeys(KINDS[:10], 0.1))
    assert all(fate(always, "word", nth).fault for nth in range(1, 500))


def test_latencies_of_a_word_differ_by_number_and_slow_ones_are_ten_times_as_long():
    settings = Settings(latency_ms=100, jitter_ms=100, word_faults={"b": [WordFault("slow")]})
    latencies = [fate(settings, "a", nth).latency_ms for nth in range(1, 300)]

    assert len(set(latencies)) > 290
    assert 90 < sum(latencies) / len(latencies) < 110
    slow = Settings(latency_ms=100, word_faults={"b": [WordFault("slow")]})
    assert fate(slow, "b", 1).latency_ms == 1_000
    assert fate(slow, "a", 1).latency_ms == 100


def test_what_is_ordered_for_a_word_comes_before_what_is_drawn_and_in_its_turn():
    ordered = [WordFault("hang", 2), WordFault("reset", 1)]
    settings = Settings(faults={"safety": 1}, word_faults={"a": ordered, "b": [WordFault("spii")]})

    assert [fate(settings, "a", nth).fault for nth in (1, 2, 3, 4)] == [
        "hang",
        "hang",
        "reset",
        "safety",
    ]
    assert fate(settings, "b", 99).fault == "spii"
    assert fate(settings, "c", 1).fault == "safety"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"per_day": 0}, "quota"),
        ({"window": "round"}, "window is one of"),
        ({"window_ms": 0}, "1 ms"),
        ({"outage_kind": "total"}, "outage is one of"),
        ({"latency_ms": 5, "jitter_ms": 6}, "jitter"),
        ({"burst": 3, "per_minute": 5}, "burst"),
        ({"burst": 3, "window": "bucket"}, "burst"),
        ({"tenants": 3}, "tenants"),
        ({"outage_s": (3, 3)}, "outage"),
        ({"faults": {"hiccup": 0.1}}, "'hiccup' is no kind"),
        ({"word_faults": {"a": [WordFault("hiccup")]}}, "'hiccup' is no kind"),
        ({"word_faults": {"a": [WordFault("hang", 0)]}}, "once"),
        ({"faults": {"hang": -0.1}}, "at least 0"),
        ({"faults": {"hang": float("nan")}}, "at least 0"),
        ({"faults": {"hang": 0.6, "reset": 0.6}}, "at the most"),
        ({"faults": {"slow": 0.1}}, "slow"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, told):
    with pytest.raises(ValueError, match=told):
        Settings(**setting)
