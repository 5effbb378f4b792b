"""Reads a list of words or short terms as models write them, whatever they were asked for.

Rule: pure, linear in the text, and nothing vanishes: a piece that has letters or digits in it is
kept as a term or left out with a reason. What explains a term (`abate - to lessen`, `abate (verb)`)
is no piece of its own.

A text is read in three steps, each of them a few small rules:

1. pieces: the strings of a JSON array, else what stands between commas, semicolons and line breaks.
   Where a line defines a term, the commas after it are the definition's.
2. terms: a piece without numbering, bullet, Markdown, quotes, punctuation, "and", definition.
3. the list: no sentences, nothing twice, nothing too long, and one way to write capitals.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

CUT_OFF = "cut off"
REPEATED = "repeated"
SENTENCE = "a sentence"
TOO_LONG = "too long"
LONGEST = 80
MOST_WORDS = 6
FEWEST_CAPITALS = 3
"""In a shorter list capital letters may be chance."""
WORDY = 4
"""Words between two commas above which a line with a full stop is a sentence."""
LOOKED_AT = 500
"""A piece that is longer is no term, and is not taken apart."""

_SEPARATOR = re.compile(r"[,;،、，；]")
_FENCE = re.compile(r"```\w*")
_NUMBER = re.compile(r"\(?(?:\d{1,4}|[a-zA-Z])\)\s?|\d{1,4}\.(?=\D)\s?")
_BULLET = re.compile(r"[-+•‣◦▪●○·–—]\s")
_INLINE_NUMBER = re.compile(r"\s(?=\(?\d{1,4}[.)]\s)")
_REMARK = re.compile(r"(?<=\w) ?\((?!\d{1,4}\))[^()]*\)")
_DEFINITION = re.compile(r"\s(?:[-–—=→]|->)\s|[:：](?:\s|$)|—")
_BRACKET = re.compile(r"\(")
_NEXT_SENTENCE = re.compile(r"[.!?]\s(?=\w+\W+\w+\W+\w)")
_OPENING = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|great)!"
    r"|(?:(?:sure|certainly|of course|absolutely|okay)[,.] )?"
    r"(?:here (?:are|is)|here's|below (?:are|is)|(?:the )?following (?:are|is|words|terms)"
    r"|these (?:are|words|terms)|this list|i hope|i have|i've|i can|let me know|feel free"
    r"|would you|if you|please|note that|hope)\b"
)
_ASIDE = re.compile(r"(?:note|tip|p\.s\.):? ", re.IGNORECASE)
_ENDINGS = frozenset("`~|<>=^$")
_JSON_STARTS = re.compile(r"(?:^|\n|: )(?=[\[{])")


class LeftOut(NamedTuple):
    """A piece of the text that is not in the list, and why."""

    text: str
    reason: str


class Items(NamedTuple):
    """What a text lists."""

    kept: list[str]
    left_out: list[LeftOut]


class _Piece(NamedTuple):
    text: str
    prose: bool = False


def read_items(text: str, *, truncated: bool) -> Items:
    """Return the terms that a model's text lists, in its order, and what of it is none.

    Args:
        text: comma-separated or one a line; numbered, with bullets, quotes, Markdown, definitions;
            a JSON array, or an object with one; with an introduction or a closing sentence or none.
        truncated: the text was cut off, so that its last piece may be half of one: it is left out.

    A term that comes twice, in whichever case, is kept as it came first. Where every term of at
    least 3 begins with a capital letter and none has another, or all are in capitals only, they
    are taken for ordinary words in a list of headings, and become lower case: a list of nothing but
    names of one word each loses its capitals, too. One inner capital (`New York`, `McCarthyism`)
    or one small word keeps them all.

    """
    text = _legible(text)
    pieces = _json_pieces(text)
    whole = pieces is not None or text.endswith("\n") or _SEPARATOR.match(text[-1:]) is not None
    pieces = list(_pieces(text)) if pieces is None else pieces
    pieces = [piece for piece in pieces if _has_word(piece.text)]
    cut_off = [LeftOut(pieces.pop().text, CUT_OFF)] if truncated and not whole and pieces else []
    kept: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for piece in pieces:
        term = piece.text if piece.prose else _term(piece.text)
        reason = SENTENCE if piece.prose else _fault(term)
        if reason is None and term.casefold() in kept:
            reason = REPEATED
        if reason is None:
            kept[term.casefold()] = term
        else:
            left_out.append(LeftOut(term, reason))
    return Items(_in_one_case(list(kept.values())), left_out + cut_off)


def _legible(text: str) -> str:
    """Return a text in NFC without fences, emphasis and what can't be seen; a blank is a space."""
    lines = []
    for line in text.splitlines():
        line = line.strip()  # noqa: PLW2901 - the same line, step by step
        if _FENCE.fullmatch(line):
            continue
        if line.startswith("* "):
            line = f"-{line[1:]}"  # noqa: PLW2901 - a bullet, not emphasis
        for mark in ("*", "`", "__"):
            line = line.replace(mark, "")  # noqa: PLW2901
        lines.append(" ".join(unicodedata.normalize("NFC", _visible(line)).split()))
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")


def _visible(line: str) -> str:
    line = line.replace("\t", " ")
    if line.isascii() and line.isprintable():
        return line
    # Joiners are part of how some words are spelt.
    return "".join(
        char for char in line if unicodedata.category(char)[0] != "C" or char in "\u200c\u200d"
    )


def _json_pieces(text: str) -> list[_Piece] | None:
    """Return the strings of the JSON array in a text, and what stands around it; else None."""
    found = _JSON_STARTS.search(text)
    if found is None:
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(text, found.end())
    except (RecursionError, ValueError):
        return None
    strings = [" ".join(_legible(string).split()) for string in _strings(value)]
    if not strings:
        return None
    return [
        _Piece(text[: found.end()].strip(), prose=True),
        *_pieces("\n".join(strings)),
        _Piece(text[end:].strip(), prose=True),
    ]


def _strings(value: object) -> Iterator[str]:
    """Yield the strings of an array, or of the one array of an object; of an object its first."""
    if isinstance(value, dict):
        arrays = [inner for inner in value.values() if isinstance(inner, list)]
        value = arrays[0] if len(arrays) == 1 else []
    for item in value if isinstance(value, list) else []:
        first = next(iter(item.values()), None) if isinstance(item, dict) else item
        if isinstance(first, str):
            yield first


def _pieces(text: str) -> Iterator[_Piece]:
    """Yield what stands between the separators of a text, and the sentences around it."""
    lines = [(line, _is_prose(line)) for line in text.split("\n") if line]
    alone = sum(not prose for _, prose in lines) == 1
    for line, prose in lines:
        if prose:
            yield _Piece(line, prose=True)
            continue
        introduction, rest = _introduction(line, alone=alone)
        yield _Piece(introduction, prose=True)
        yield from _line_pieces(rest, alone=alone)


def _is_prose(line: str) -> bool:
    """Tell whether a line is about the list: a heading, an introduction, a closing sentence."""
    if line.startswith("#") or line.endswith(":"):
        return not _NUMBER.match(line)
    if not line.endswith((".", "!", "?")) or _NUMBER.match(line) or _BULLET.match(line):
        return False
    if _ASIDE.match(line):
        return True
    if _DEFINITION.search(line):
        return False
    if _OPENING.match(line.lower()) and " " in line:
        return True
    following = _NEXT_SENTENCE.search(line)
    line = line[: following.start() + 1] if following else line
    words, commas = line.count(" ") + 1, len(_SEPARATOR.findall(line))
    return words > WORDY * (commas + 1) or (words > 1 and not commas and line[-1] in "!?")


def _introduction(line: str, *, alone: bool) -> tuple[str, str]:
    """Split off what announces a list on its own line: "Some words: abate, zeal"."""
    before, _, after = line.partition(": ")
    if _OPENING.match(before.lower()) and after:
        return before, after
    # One line "Some words: abate, zeal" is a list, and one of several such lines is a definition.
    listed = alone and _SEPARATOR.search(after) and not _DEFINITION.search(after)
    return (before, after) if listed and not _SEPARATOR.search(before) else ("", line)


def _line_pieces(line: str, *, alone: bool) -> Iterator[_Piece]:
    line = _REMARK.sub("", line)
    for part in _INLINE_NUMBER.split(line) if _NUMBER.match(line) else [line]:
        terms = part if alone else _undefined(_unmarked(part))
        # Between definitions on one line there are semicolons, and the commas are theirs.
        defined = alone and ";" in terms and _DEFINITION.search(terms)
        split = terms.split(";") if defined else _SEPARATOR.split(terms)
        yield from _last_pair([piece for one in split if one for piece in _sentences(one)])


def _sentences(piece: str) -> Iterator[_Piece]:
    """Yield a piece, and apart from it the sentences that follow it."""
    found = _NEXT_SENTENCE.search(piece)
    yield _Piece(piece[: found.end()] if found else piece)
    if found:
        yield _Piece(piece[found.end() :], prose=True)


def _last_pair(pieces: list[_Piece]) -> list[_Piece]:
    """Return pieces, with "b and c." taken apart; without the full stop it may be one term."""
    if len(pieces) == 1:
        return pieces
    at = max((n for n, piece in enumerate(pieces) if not piece.prose), default=0)
    if not at:
        return pieces
    last = pieces[at].text.strip()
    first, conjunction, second = last.rstrip(".").partition(" and ")
    singles = [piece.text.strip() for piece in pieces[:at]] + [first, second]
    if not conjunction or not last.endswith(".") or any(" " in one for one in singles):
        return pieces
    return [*pieces[:at], _Piece(first), _Piece(second), *pieces[at + 1 :]]


def _term(piece: str) -> str:
    """Return the term in a piece that has a letter or a digit in it."""
    before, piece = "", piece.strip()
    # One word has nothing around it: so are most.
    while piece != before and not piece.isalnum():
        before = piece
        piece = _bare(_undefined(_unmarked(piece)))
        conjunction, _, after = piece.partition(" ")
        if conjunction in ("and", "&") and _has_word(after):
            piece = after
        if len(piece) > LOOKED_AT:
            break
    return piece


def _unmarked(piece: str) -> str:
    """Return a piece without bullet and number, unless it is nothing else."""
    for mark in (_BULLET, _NUMBER):
        piece = piece.strip()
        found = mark.match(piece)
        if found is not None and _has_word(piece[found.end() :]):
            piece = piece[found.end() :]
    return piece


def _undefined(piece: str) -> str:
    """Return a piece without what defines it, unless it is nothing else."""
    piece = _REMARK.sub("", piece)
    for start in (_DEFINITION, _BRACKET):
        found = start.search(piece)
        if found is not None and _has_word(piece[: found.start()]):
            piece = piece[: found.start()]
    return piece


def _bare(piece: str) -> str:
    """Return a piece without the punctuation, blanks and symbols around it."""
    start, end = 0, len(piece)
    while start < end and _kind(piece[start]) in "PZCMS":
        start += 1
    while start < end and (_kind(piece[end - 1]) in "PZC" or piece[end - 1] in _ENDINGS):
        end -= 1
    return piece[start:end]


def _kind(char: str) -> str:
    return unicodedata.category(char)[0]


def _fault(term: str) -> str | None:
    if " " in term and _OPENING.match(term.lower()):
        return SENTENCE
    if len(term) > LONGEST or term.count(" ") >= MOST_WORDS:
        return TOO_LONG
    return None


def _in_one_case(terms: list[str]) -> list[str]:
    """Return terms in lower case where capitals are how the list is set, and no part of them."""
    headed = all(term[0].isupper() and term[1:] == term[1:].lower() for term in terms)
    loud = all(term.isupper() and len(term) > 1 for term in terms)
    if len(terms) < FEWEST_CAPITALS or not (headed or loud):
        return terms
    return [unicodedata.normalize("NFC", term.lower()) for term in terms]


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))
