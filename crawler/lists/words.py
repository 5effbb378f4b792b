"""What an item of a list is: a text that can be seen, and its fields.

Rule: one spelling is one word, whatever list it came in: NFC, no byte order mark, no blanks around.
"""

import unicodedata
from collections.abc import Iterable, Mapping

from crawler.errors import BLANKS, CrawlerError, Exit
from crawler.protocol import Word

NAMED = 5
"""Characters that an error names."""
NO_FIELDS: Mapping[str, str] = {}  # one for all: a list may have millions of words


def word_of(text: str, fields: Mapping[str, str]) -> Word | None:
    """Return the word that a text stands for; None for a blank.

    Raises CrawlerError for a text that can't be stored or can't be seen.
    """
    text = as_added(text)
    if "\0" in text:
        raise CrawlerError(
            "a word has a NUL character in it",
            "SQLite's own tools would cut it off there",
            "is this a text file? remove the character",
            Exit.USAGE,
        )
    try:
        if fields or not text.isascii():
            "".join((text, *fields, *fields.values())).encode()
    except UnicodeEncodeError as error:
        raise CrawlerError(
            "a word or a field of it is no text",
            "it has a lone surrogate in it: half a character, or a byte that is not UTF-8",
            "is this UTF-8? convert the list, for example with iconv",
            Exit.USAGE,
        ) from error
    if text and not _is_visible(text):
        raise CrawlerError(
            "a word can't be seen",
            f"it is nothing but {', '.join(map(_code_point, list(dict.fromkeys(text))[:NAMED]))}",
            "remove it from the list",
            Exit.USAGE,
        )
    return Word(text, fields) if text else None


def as_added(text: str) -> str:
    """Return a text as it is stored: no byte order mark, no white space around it, and NFC."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text.replace("\ufeff", "").strip())


def look_alikes(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of different texts that nobody can tell apart when they are printed.

    They differ in characters that show nothing (a zero-width space, a soft hyphen), or in the kind
    or number of their blanks.
    """
    texts = list(texts)
    odd = {text: shown for text in texts if (shown := _shown(text)) != text}
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(odd.get(text, text), text)
    return [(first[shown], text) for text, shown in odd.items() if first[shown] != text]


def _is_visible(text: str) -> bool:
    return any(_shows(char) for char in text)


def _shows(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZ" and char not in BLANKS


def _shown(text: str) -> str:
    """Return what of a text can be seen, with one space for each stretch of blanks."""
    if text.isascii() and "  " not in text and text.isprintable():
        return text
    return "".join(char for char in " ".join(text.split()) if char == " " or _shows(char))


def _code_point(char: str) -> str:
    return f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character').lower()})"
