"""What a model thought before it answered, cut from what it answered.

Rule: pure, one pass, in linear time. Thoughts are no part of an answer, and only thoughts are none.
"""

import re
from typing import NamedTuple

MOST_THOUGHTS = 100_000
"""Bytes of thoughts that are kept."""
_MOST_INDENT = 64

_TAG = re.compile(
    r"<(?P<close>/?)(?:think|seed:think|thinking|thought|thoughts|reasoning)>"
    r"|\[(?P<mistral>/?)THINK\]"
    r"|<\|(?P<cohere>START|END)_THINKING\|>"
    r"|◁(?P<kimi>/?)think▷"
    r"|(?P<gemma><\|channel>thought\n?)|(?P<gemma_end><channel\|>)"
)
_ENDS_OF_TURN = (
    *("<|return|>", "<|end|>", "<turn|>", "<|END_RESPONSE|>", "</response>"),
    *("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>"),
)
_STARTS_OF_ANSWER = ("<|START_RESPONSE|>", "<response>")

_CHANNEL = "<|channel|>"
_MESSAGE = "<|message|>"
_FINAL = "final"
_BARE_START, _BARE_FINAL = "analysis", "assistantfinal"


class Split(NamedTuple):
    """A text in its two parts.

    Attributes:
        text: the answer.
        thoughts: what stood before or between, without its tags, cut at `MOST_THOUGHTS`.
        is_open: the thoughts have not come to their end: whatever the server says, that is half an
            answer.

    """

    text: str
    thoughts: str = ""
    is_open: bool = False


def split_thoughts(written: str) -> Split:
    """Cut the thoughts from what a model wrote.

    A closing tag alone ends thoughts that the template had opened: all before it. An opening tag
    counts at the beginning of a line only, none within JSON or after a backquote, so that an answer
    may speak of tags.
    """
    if not _may_have_thoughts(written):
        return Split(written)
    if _CHANNEL in written:
        return _harmony(written)
    start = written.lstrip("\ufeff \t\r\n")
    if start.startswith(_BARE_START) and _BARE_FINAL in start:
        thoughts, _, text = start.removeprefix(_BARE_START).rpartition(_BARE_FINAL)
        return _joined([text], [thoughts])
    if start.startswith(("{", "[{", '["')) and start.rstrip().endswith(("}", "]")):
        return Split(written)
    return _by_tags(written)


def _may_have_thoughts(written: str) -> bool:
    """Tell whether a text has what all thoughts have; most have not, and are read no further."""
    return "<" in written or "THINK]" in written or "◁" in written or _BARE_FINAL in written


def cut_thoughts(thoughts: str) -> str:
    """Return as much of some thoughts as is kept."""
    return thoughts.encode("utf-8", "replace")[:MOST_THOUGHTS].decode("utf-8", "ignore")


def _by_tags(written: str) -> Split:
    texts: list[str] = []
    thoughts: list[str] = []
    at, is_open = 0, False
    for tag in _TAG.finditer(written):
        if written[tag.start() - 1 : tag.start()] == "`":
            continue
        if _closes(tag):
            thoughts += [*(texts if not is_open else ()), written[at : tag.start()]]
            texts = texts if is_open else []
            at, is_open = tag.end(), False
        elif not is_open and _begins_line(written, at, tag.start()):
            texts.append(written[at : tag.start()])
            at, is_open = tag.end(), True
    (thoughts if is_open else texts).append(written[at:])
    if not thoughts:
        return Split(_without_marks(written))
    return _joined(texts, thoughts, is_open=is_open)


def _closes(tag: re.Match[str]) -> bool:
    marks = (tag["close"], tag["mistral"], tag["kimi"])
    return "/" in marks or tag["cohere"] == "END" or tag["gemma_end"] is not None


def _begins_line(written: str, since: int, at: int) -> bool:
    """Tell whether only a few spaces stand between a place and its line's beginning, or a tag."""
    start = max(since, at - _MOST_INDENT)
    before = written[start:at].rstrip("\ufeff \t\r")
    return before.endswith("\n") or (not before and start == since)


def _harmony(written: str) -> Split:
    """Cut a text in harmony's channels: the answer is in the last one that is called final."""
    before, *channels = written.split(_CHANNEL)
    texts: list[str] = []
    thoughts = [before.partition("<|start|>")[0]] if before.strip() else []
    for channel in channels:
        name, mark, content = channel.partition(_MESSAGE)
        content = content if mark else name.partition("\n")[2]
        content = content.partition("<|start|>")[0]
        if name.strip().startswith(_FINAL):
            texts = [content]
        else:
            thoughts.append(_without_marks(content))
    return _joined(texts, thoughts, is_open=not texts)


def _joined(texts: list[str], thoughts: list[str], *, is_open: bool = False) -> Split:
    thought = "\n".join(part for part in map(str.strip, thoughts) if part)
    text = _without_marks("".join(texts)).strip()
    return Split(text, cut_thoughts(thought), is_open)


def _without_marks(text: str) -> str:
    """Return a text without what a template puts around an answer."""
    for mark in _ENDS_OF_TURN if text.rstrip().endswith(">") else ():
        text = text.rstrip().removesuffix(mark) if text.rstrip().endswith(mark) else text
    for mark in _STARTS_OF_ANSWER:
        text = text.lstrip().removeprefix(mark) if text.lstrip().startswith(mark) else text
    return text
