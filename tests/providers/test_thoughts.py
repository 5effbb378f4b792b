"""What a model thought is cut from what it answered; why it stopped decides what that is worth."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.providers.answers.check import examine
from crawler.providers.answers.finish_reasons import (
    End,
    end_of,
    end_of_vertex,
    name_of,
    vertex_name,
)
from crawler.providers.answers.json_answer import without_fence
from crawler.providers.answers.thoughts import MOST_THOUGHTS, split_thoughts

HARMONY = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("written", "text", "thoughts"),
    [
        ("A word.", "A word.", ""),
        ("<think>hm</think>A word.", "A word.", "hm"),
        ("\n<think>\nhm\n</think>\n\nA word.", "A word.", "hm"),
        ("<thinking>hm</thinking>A word.", "A word.", "hm"),
        ("<thought>hm</thought>A word.", "A word.", "hm"),
        ("hm\n</think>\nA word.", "A word.", "hm"),
        ("hm</think>mm</think>A word.", "A word.", "hm\nmm"),
        ("<think></think>A word.", "A word.", ""),
        ("<think>a</think>One.\n<think>b</think>Two.", "One.\nTwo.", "a\nb"),
        ("[THINK]hm[/THINK]A word.", "A word.", "hm"),
        (
            "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>A word.<|END_RESPONSE|>",
            "A word.",
            "hm",
        ),
        ("◁think▷hm◁/think▷A word.", "A word.", "hm"),
        ("<|channel>thought\nhm<channel|>A word.", "A word.", "hm"),
        ("<|channel>thought\nhm<channel|>A word.<turn|>", "A word.", "hm"),
        (
            f"{HARMONY}<|channel|>final<|message|>A word.<|return|>",
            "A word.",
            "hm",
        ),
        ("analysisThe user asks.assistantfinalA word.", "A word.", "The user asks."),
        ("<seed:think>hm</seed:think>A word.<|im_end|>", "A word.", "hm"),
        ("A word.<|eot_id|>\n", "A word.", ""),
        ("`</think>` ends it.", "`</think>` ends it.", ""),
        ("Write the tag <think> here.", "Write the tag <think> here.", ""),
        ('{"a": "the tag </think>"}', '{"a": "the tag </think>"}', ""),
    ],
)
def test_thoughts_are_cut_off_and_kept(written, text, thoughts):
    assert split_thoughts(written) == (text, thoughts, False)


@pytest.mark.parametrize(
    "written",
    ["<think>hm", "One.\n<think>hm", "<|channel>thought\nhm", "<|channel|>analysis<|message|>hm"],
)
def test_thoughts_without_an_end_are_half_an_answer(written):
    assert split_thoughts(written).is_open
    assert examine({}, "w", written)[1] == "is not whole: its thoughts have no end"


def test_thoughts_are_kept_up_to_a_bound():
    thoughts = split_thoughts(f"<think>{'é' * MOST_THOUGHTS}</think>A word.").thoughts
    assert len(thoughts.encode()) == MOST_THOUGHTS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<think>hm {"a": 2}</think>\n```json\n{"a": 1}\n```', '{"a": 1}'),
        ('hm</think>{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```json {"a": 1}```', '{"a": 1}'),
        ('~~~\n{"a": 1}\n~~~', '{"a": 1}'),
        ('````json\n{"a": "```"}\n````', '{"a": "```"}'),
        ('```json\n{"a": "```"}\n```', '{"a": "```"}'),
        ('```json\n{"a": 1}', '{"a": 1}'),
    ],
)
def test_json_after_thoughts_or_in_a_fence_is_json(text, found):
    assert examine({"response_mime_type": "application/json"}, "w", text) == (found, None)


@pytest.mark.parametrize(
    "text",
    ['Sure: {"a": 1}', 'Here:\n```json\n{"a": 1}\n```', '```\n{"a": 1}\n```\nHope it helps.'],
)
def test_json_in_the_middle_of_prose_is_none(text):
    fault = examine({"response_mime_type": "application/json"}, "w", text)[1]
    assert fault is not None
    assert fault.startswith("is not JSON")


def test_what_a_prefill_opened_is_no_part_of_the_answer():
    for prefill in ("<think>\n", "<think>\n\n</think>\n\n"):
        assert examine({}, "w", "A word.", prefill) == ("A word.", None)
    assert examine({}, "w", "hm</think>A word.", "<think>") == ("A word.", None)


@pytest.mark.parametrize(
    ("end", "reasons"),
    [
        (End.GOOD, ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", None, ""]),
        (End.TRUNCATED, ["length", "max_tokens", "MAX_TOKENS", "model_length"]),
        (End.BLOCKED, ["content_filter", "safety", "sensitive", "refusal", "SPII", "BLOCKLIST"]),
        (End.HALF, ["abort", "error", "insufficient_system_resource", "network_error", "TIMEOUT"]),
        (End.ODD, ["tool_calls", "OTHER", "MALFORMED_RESPONSE", "no such", 1, True, {}, [], 1.5]),
        (End.ODD_BLOCKED, ["RECITATION", "content_filter: RECITATION"]),
    ],
)
def test_a_finish_reason_is_in_one_list_or_odd(end, reasons):
    assert {end_of(reason) for reason in reasons} == {end}


def test_a_stream_without_an_end_is_no_good_answer():
    assert end_of(None, streamed=True) is End.ODD


@pytest.mark.parametrize(
    ("end", "reasons"),
    [
        (End.GOOD, ["STOP", 1, "1"]),
        (End.TRUNCATED, ["MAX_TOKENS", 2]),
        (End.BLOCKED, ["SAFETY", 3, "PROHIBITED_CONTENT", 7, "SPII", 8, "MODEL_ARMOR", 10]),
        (End.ODD_BLOCKED, ["RECITATION", 4]),
        (
            End.ODD,
            [None, 0, "OTHER", 5, "MALFORMED_FUNCTION_CALL", 9, "UNEXPECTED_TOOL_CALL", 99, "99"],
        ),
    ],
)
def test_vertex_has_names_and_numbers(end, reasons):
    assert {end_of_vertex(reason) for reason in reasons} == {end}


def test_the_numbers_of_vertex_are_those_of_its_library():
    from crawler.providers.vertex.messages import Candidate  # noqa: PLC0415 - takes a second

    for name, number in Candidate.FinishReason.items():
        assert vertex_name(number) == name


def test_a_reason_is_kept_as_one_short_word():
    assert name_of({"reason": "secret"}) == "dict"
    assert name_of("a\nb" + "x" * 99) == "ab" + "x" * 57
    assert (name_of(None), name_of(7)) == (None, "7")


TAGS = (
    "<think> </think> [THINK] <|channel|> <|message|> final a { } <|channel>thought <channel|> ```"
    " analysis assistantfinal <|start|>"
).split()


@given(st.lists(st.sampled_from([*TAGS, "\n"]), max_size=30).map("".join))
def test_whatever_is_written_nothing_is_made_up(written):
    split = split_thoughts(written)
    assert len(split.text) + len(split.thoughts) <= len(written) + len(written)
    examine({"response_mime_type": "application/json"}, "w", written)


@pytest.mark.parametrize(
    "piece",
    ["\n", "<think>", "x<think>", "</think>", "<|channel|>", "```\n", "``` \n", "~~~ ", " "],
)
def test_a_megabyte_is_cut_in_linear_time(piece):
    text = (piece * 2**20)[: 2**20]
    began = time.process_time()
    split_thoughts(text)
    without_fence("```json\n" + text + "\n```")
    assert time.process_time() - began < 2
