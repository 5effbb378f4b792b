"""Simple checks of an answer, named by the parameter ``checks``: what a small model gets wrong.

Rule: pure; an answer that fails is a transient failure with this reason, and is tried again.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

STEM_SHARE = 0.6
"""How much of a word must be found: abrogate is mentioned by "abrogating"."""


def ends_as_sentence(word: str, text: str) -> str | None:
    """Return what is wrong if the text stops in mid-sentence."""
    del word
    closing = text.rstrip().rstrip("\"'”’)")
    return None if closing.endswith((".", "!", "?")) else "does not end as a sentence"


def mentions_word(word: str, text: str) -> str | None:
    """Return what is wrong if the word's stem is not in the text."""
    stem = word[: max(4, round(len(word) * STEM_SHARE))].lower()
    return None if stem in text.lower() else "does not mention the word"


CHECKS: Mapping[str, Callable[[str, str], str | None]] = MappingProxyType(
    {"ends_as_sentence": ends_as_sentence, "mentions_word": mentions_word}
)


def complaint(checks: Iterable[str], word: str, text: str) -> str | None:
    """Return the first complaint of the named checks about an answer; None if it passes."""
    for name in checks:
        found = CHECKS[name](word, text)
        if found is not None:
            return found
    return None
