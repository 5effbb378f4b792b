"""The built-in prompts: `study-notes`, a mnemonic and a definition of each word, and `word-list`.

Rule: what a model can do decides how it is asked. A large one is simply asked; the embedded one
only ever continues a pattern, and is given the definition where the list has one.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from crawler.ledger.intake import PromptSpec
from crawler.protocol import Word
from crawler.providers import kind_of

STUDY_NOTES = "study-notes"

# Few-shot completion with the gloss given: 20 right definitions of 20 words. Asked in plain words,
# the embedded model got 3 right; shown examples but no gloss, 15.
_CONTINUED = """\
Word: lucid
Definition: transparently clear; easily understandable
Memory sentence: The lucid lecture was so clear that even the back row understood it.

Word: placate
Definition: cause to be more favorably inclined; gain the good will of
Memory sentence: The waiter brought a free dessert to placate the angry guests.

Word: taciturn
Definition: habitually reserved and uncommunicative
Memory sentence: My taciturn uncle said only three words during the whole dinner.

Word: mitigate
Definition: make less severe or harsh
Memory sentence: Thick carpets mitigate the noise of footsteps in the hall.

Word: {word}
{answer}Definition:[[ {gloss}
Memory sentence:]]"""

_CONTINUED_PARAMS = MappingProxyType(
    {
        "endpoint": "completion",
        "checks": ["ends_as_sentence", "mentions_word"],
        "max_output_tokens": 80,
        "retry_temperature": 0.7,
        "seed": 1,
        "stop": ["\n\n", "\nWord:"],
        "temperature": 0.2,
    }
)

_ASKED = """\
Help me to learn the word "{word}".[[ It is a {part_of_speech}.]][[ In a dictionary: {gloss}.]]

Answer in exactly two lines:
Definition: what it means, in plain words
Memory sentence: one sentence, a mnemonic, that uses "{word}" and makes the meaning stick"""

_ASKED_PARAMS = MappingProxyType({"max_output_tokens": 500})

# Thoughts count as output: with nothing said a model may spend all of it on them. Each takes what
# it can be told: none at all, a small budget, a level.
_LEAST_THINKING: Mapping[str, int | str] = MappingProxyType(
    {"gemini-2.5-flash": 0, "gemini-2.5-pro": 128, "gemini-3": "low"}
)


def study_notes(provider: str, model: str | None) -> PromptSpec:
    """Return the built-in prompt, as it is put to a provider. Raises CrawlerError."""
    continued = provider == "local"
    return PromptSpec(
        STUDY_NOTES,
        _CONTINUED if continued else _ASKED,
        provider,
        model or kind_of(provider).default_model or "",
        _CONTINUED_PARAMS if continued else _asked_params(provider, model),
    )


def _asked_params(provider: str, model: str | None) -> Mapping[str, Any]:
    name = (model or kind_of(provider).default_model or "").rpartition("/")[2]
    for begin, thinking in _LEAST_THINKING.items():
        if provider == "vertex" and name.startswith(begin):
            return {**_ASKED_PARAMS, "thinking": thinking}
    return _ASKED_PARAMS


WORD_LIST = "word-list"

_LISTED = """\
Write a list of {topic}.[[ Give {count} of them.]]

Answer with the list alone, on one line, separated by commas: no numbers, no headings, no \
explanations.[[ The list so far: {so_far}. Go on after "{after}", and repeat none of these.]]"""

_MOST_SHOWN = 300
"""Items of the list so far that a model is shown: enough to go on from, and no long prompt."""


def word_list(provider: str, model: str, params: Mapping[str, Any]) -> PromptSpec:
    """Return the prompt that has a model write the words; each part of it is a word."""
    usual: dict[str, Any] = {"allow_truncated": True}  # it is asked on from there
    if provider == "local":
        usual |= {"max_output_tokens": 300, "temperature": 0.2, "repeat_penalty": 1.1}
    return PromptSpec(WORD_LIST, _LISTED, provider, model, {**usual, **params})


def list_word(topic: str, count: int | None, so_far: Sequence[str]) -> Word:
    """Return what is asked about: a topic, from the beginning or from the end of a list on.

    Its text tells it from every other, because the fields of a word never change: what else is
    asked is another word, and no word of the user's own is taken for it.
    """
    fields = {"topic": topic}
    if count is not None:
        fields["count"] = str(count)
    if so_far:
        fields |= {"so_far": ", ".join(so_far[-_MOST_SHOWN:]), "after": so_far[-1]}
    told = json.dumps(fields, sort_keys=True).encode()
    return Word(f"list of {topic} #{blake2b(told, digest_size=4).hexdigest()}", fields)
