"""Prompt templates: ``{names}`` of a closed list, and nothing that runs.

Rule: a template can only ever read the word and its fields. ``str.format`` is not used, because
it reads attributes.

    Give a definition of {word}.[[ It is a {part_of_speech}.]]
    {answer}Definition:

``{word}`` and the names of the word's fields are replaced: letters, digits, and within them blanks
and the signs ``- / ( ) & +``, as columns are called. ``[[ … ]]`` stays only where every name in it
has a value. What follows ``{answer}`` begins the answer: the model is made to continue it, and it
is part of the result. Any other brace is an ordinary character; `flaw_of` tells those that were
hardly meant so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_NAME = re.compile(r"\{([^\W\d](?:[\w /()&+-]*[\w)])?)\}")
_ANSWER = "{answer}"
_DOUBLED = re.compile(rf"\{{{_NAME.pattern}\}}")
_ALMOST = re.compile(r"""\{[^\S\n]*(\w*[^\W\d][\w-]*)[^{}"':,|\n]*\}""")
"""A name in braces, and something else; not the shape of an answer, as ``{"word": …}`` is one."""
_SHOWN = 30
"""Characters of a template that a flaw quotes."""


class Rendered(NamedTuple):
    """A prompt as it is sent: the question, and the beginning of the answer (often empty)."""

    prompt: str
    prefill: str


class MissingField(ValueError):  # noqa: N818 - it names what is missing, not an error
    """A name that the template needs and the word has no value for."""


class Flaw(NamedTuple):
    """What of a template would be sent as it stands, though it was hardly meant so."""

    what: str
    cause: str
    hint: str


class _Piece(NamedTuple):
    """A stretch of a template: text and names in turn, beginning and ending with text."""

    parts: Sequence[str]
    optional: bool


class Template:
    """A template, read once."""

    def __init__(self, text: str) -> None:
        question, _, beginning = text.partition(_ANSWER)
        self._question = _read(question)
        self._beginning = _read(beginning) if beginning else []

    def required_names(self) -> frozenset[str]:
        """Return the names without which nothing can be rendered."""
        pieces = (*self._question, *self._beginning)
        return frozenset(
            name for piece in pieces if not piece.optional for name in piece.parts[1::2]
        )

    def all_names(self) -> frozenset[str]:
        """Return the names that make a difference to what is rendered."""
        pieces = (*self._question, *self._beginning)
        return frozenset(name for piece in pieces for name in piece.parts[1::2])

    def render(self, word: str, fields: Mapping[str, str]) -> Rendered:
        """Put a word and its fields in. Raises MissingField."""
        values = {**fields, "word": word}
        prefill = _fill(self._beginning, values) if self._beginning else ""
        return Rendered(_fill(self._question, values), prefill)


def flaw_of(template: str) -> Flaw | None:
    """Return the first thing that is wrong with a template; None where it can be meant as it is."""
    if doubled := _DOUBLED.search(template):
        return Flaw(
            f"the template would ask with the braces of {doubled[0]}",
            "what stands in single braces is filled in",
            f"write {doubled[0][1:-1]}",
        )
    almost = (found for found in _ALMOST.finditer(template) if not _NAME.match(found[0]))
    if found := next(almost, None):
        return Flaw(
            f"the template would ask with the braces of {found[0]}",
            "the name of a column begins with a letter; blanks or - / ( ) & + may be within it",
            f"write {{{found[1]}}}, or give the column a name as {{part_of_speech}}",
        )
    for part in template.split(_ANSWER):
        if (at := _odd_brace(part)) is not None:
            return Flaw(
                f"the template would ask with a lone brace: {_quote(part, at)}",
                "braces come in pairs, around the name of a column",
                "write {word}, for example; a brace that is meant is named in words",
            )
        if (at := _odd_brackets(part)) is not None:
            return Flaw(
                f"the template would ask with lone brackets: {_quote(part, at)}",
                "[[ and ]] come in pairs, not within others, and not around {answer}",
                "write [[ as {column}]], for example: it is left out where the column is empty",
            )
    return None


def _odd_brace(text: str) -> int | None:
    """Return where a brace without its other half is."""
    opened = []
    for match in re.finditer("[{}]", text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            opened.pop()
        else:
            return match.start()
    return opened[-1] if opened else None


def _odd_brackets(text: str) -> int | None:
    """Return where doubled brackets are without their other half, or in a section.

    A list of lists, as in JSON, is neither: as many brackets open in it as close.
    """
    rest = list(text)
    for start, stop in _sections(text):
        inner = text.find("[[", start + 2, stop)
        if inner >= 0 and _NAME.search(text, start, stop):
            return inner
        rest[start:stop] = " " * (stop - start)
    odd = re.search(r"\[\[|\]\]", "".join(rest))
    return odd.start() if odd and text.count("[") != text.count("]") else None


def _quote(text: str, at: int) -> str:
    """Return the line of a template around a place, not longer than a person reads."""
    begin = text.rfind("\n", 0, at) + 1
    return text[max(begin, at - _SHOWN) : at + _SHOWN].split("\n", maxsplit=1)[0]


def _read(text: str) -> list[_Piece]:
    """Split a text at its optional sections; one that has no name in it is ordinary text."""
    pieces = []
    end = 0
    for start, stop in _sections(text):
        section = text[start + 2 : stop - 2]
        if _NAME.search(section):
            pieces.append(_Piece(_NAME.split(text[end:start]), optional=False))
            pieces.append(_Piece(_NAME.split(section), optional=True))
            end = stop
    pieces.append(_Piece(_NAME.split(text[end:]), optional=False))
    return pieces


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each ``[[ … ]]`` begins and ends, in linear time."""
    end = 0
    while (start := text.find("[[", end)) >= 0 and (stop := text.find("]]", start + 2)) >= 0:
        end = stop + 2
        yield start, end


def _fill(pieces: Sequence[_Piece], values: Mapping[str, str]) -> str:
    # Values are put between the parts and never read again: braces in a gloss stay braces.
    filled: list[str] = []
    for parts, optional in pieces:
        missing = [name for name in parts[1::2] if not values.get(name)]
        if not missing:
            whole = list(parts)
            whole[1::2] = [values[name] for name in parts[1::2]]
            filled += whole
        elif not optional:
            raise MissingField(missing[0])
    return "".join(filled)
