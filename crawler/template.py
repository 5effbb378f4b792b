"""Prompt templates: ``{names}`` of a closed list, and nothing that runs.

Rule: a template can only ever read the word and its fields. ``str.format`` is not used, because
it reads attributes.

    Give a definition of {word}.[[ It is a {part_of_speech}.]]
    {answer}Definition:

``{word}`` and the names of the word's fields are replaced. ``[[ … ]]`` stays only where every name
in it has a value. What follows ``{answer}`` begins the answer: the model is made to continue it,
and it is part of the result. Any other brace is an ordinary character.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ANSWER = "{answer}"


class Rendered(NamedTuple):
    """A prompt as it is sent: the question, and the beginning of the answer (often empty)."""

    prompt: str
    prefill: str


class MissingField(ValueError):  # noqa: N818 - it names what is missing, not an error
    """A name that the template needs and the word has no value for."""


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
