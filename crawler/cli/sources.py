"""What the arguments of `crawler add` name: words, files, standard input.

Rule: what looks like the name of a file and is none is refused, not asked about; after `--`
everything is a word.
"""

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from crawler.cli.options import literal_words
from crawler.errors import CrawlerError, Exit, quoted
from crawler.lists.form import SUFFIXES, Reading
from crawler.lists.reading import words_of_list
from crawler.lists.source import HEAD
from crawler.lists.words import as_added, word_of
from crawler.protocol import Word

_FILE_SUFFIXES = frozenset(
    ".bz2 .doc .docx .htm .html .ods .odt .pdf .rtf .xls .xml .xz .zip".split()
)
_SHORTEST = 2
"""Characters of a suffix that may be a mistyped one: `Mr.X` is a word."""


def require_sources(ctx: click.Context, sources: Sequence[str]) -> None:
    """Refuse no argument at all, and standard input twice."""
    if not sources and not literal_words(ctx):
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    if "-" in sources[1:] and sources.count("-") > 1:
        raise click.BadArgumentUsage("standard input can be read once: there are several -")


def typed_words(ctx: click.Context, sources: Sequence[str]) -> list[str]:
    """Return the words that are arguments themselves, and in no list."""
    named = [source for source in sources if source != "-" and not Path(source).is_file()]
    return [as_added(text) for text in (*named, *literal_words(ctx))]


def words_of(
    ctx: click.Context, sources: Sequence[str], how: Reading, say: Callable[[str], None]
) -> Iterator[Word | None]:
    """Yield the words that the arguments name, None where time may have gone by.

    Say what was concluded.

    Raises CrawlerError for what can't be read.
    """
    for source in sources:
        yield from _read(source, how, say)
    yield from map(_named, literal_words(ctx))


def _read(source: str, how: Reading, say: Callable[[str], None]) -> Iterator[Word | None]:
    if source == "-":
        yield from _listed(sys.stdin.buffer, "standard input", how, say)
        return
    path = Path(source)
    if source and path.is_file():
        with path.open("rb", buffering=HEAD) as stream:
            yield from _listed(stream, path.name, how, say)
        return
    if source:
        _refuse_names(source, path)
    yield _named(source)


def _listed(
    stream: BinaryIO, name: str, how: Reading, say: Callable[[str], None]
) -> Iterator[Word | None]:
    is_empty = True
    for word in words_of_list(stream, name, how, lambda note: say(f"{name}: {note}")):
        is_empty = is_empty and word is None
        yield word
    if is_empty:
        say(f"{name} has no word in it")


def _named(text: str) -> Word:
    word = word_of(text, {})
    if word is None:
        raise CrawlerError(
            "an argument is empty",
            "there is nothing to ask about",
            "is a variable of the shell empty? crawler add WORD",
            Exit.USAGE,
        )
    return word


def _refuse_names(source: str, path: Path) -> None:
    """Raise CrawlerError for a directory, and for what looks like a file that is not there."""
    if path.is_dir():
        raise CrawlerError(
            f"{source} is a directory",
            "a list is a file",
            f"crawler add {quoted(source.rstrip('/') + '/LIST')}",
            Exit.USAGE,
        )
    nearest = _nearest(path)
    if "/" in source or nearest or _is_like_a_suffix(path.suffix.lower()):
        hint = f"crawler add {quoted(nearest)}" if nearest else "check the path"
        raise CrawlerError(
            f"there is no file {source}",
            "it looks like the name of a list, so it was not taken for a word",
            f"{hint}; if it is a word: crawler add -- {quoted(source)}",
            Exit.USAGE,
        )


def _nearest(path: Path) -> str | None:
    """Return the file of this folder that is likely to be meant, if the name has a suffix."""
    if not path.suffix or not path.parent.is_dir():
        return None
    names = [one.name for one in path.parent.iterdir() if one.is_file() and one.suffix]
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return str(path.with_name(found[0])) if found else None


def _is_like_a_suffix(suffix: str) -> bool:
    """Tell whether a suffix is that of a list or a document, perhaps with two letters exchanged."""
    if suffix in SUFFIXES or suffix in _FILE_SUFFIXES:
        return True
    letters = sorted(suffix)
    return len(suffix) > _SHORTEST and any(
        letters == sorted(known) or _lacks_one(suffix, known) or _lacks_one(known, suffix)
        for known in SUFFIXES
    )


def _lacks_one(shorter: str, longer: str) -> bool:
    """Tell whether a text is another without one of its letters."""
    return any(longer[:n] + longer[n + 1 :] == shorter for n in range(1, len(longer)))
