"""`crawler add`: words in."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from crawler.cli.builtin import STUDY_NOTES
from crawler.cli.options import database_option, found, named_prompt
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.intake import Added, Prompt, add_words
from crawler.lists.words import SUFFIXES, read_list, word_of
from crawler.protocol import Word
from crawler.storage.database import Writer, writing
from crawler.template import Template

BATCH = 100_000
"""Words a transaction: a running crawl waits for no more, and the log stays short. (The words come
in any order, so each transaction writes most pages of their index.)"""
EXAMPLES = 5


@click.command(
    epilog="""\b
Examples:
  crawler add words.csv
  crawler add words.csv --column term --prompt study-notes
  crawler add abrogate laconic
  cut -f1 list.tsv | crawler add -""",
)
@click.argument("sources", nargs=-1, required=True, metavar="WORD|FILE|-...")
@click.option("--prompt", "name", default=STUDY_NOTES, help="What to ask.", show_default=True)
@click.option("--column", help="The column (CSV) or key (JSON lines) of the word.  [default: word]")
@database_option
def add(sources: Sequence[str], name: str, column: str | None, db: Path) -> None:
    """Add words, and ask a prompt about each of them.

    An existing file is read (.txt, .csv, .tsv, .jsonl; the other columns become fields of the
    word), - is standard input, anything else is a word. What is there already stays as it is.
    """
    words = [word for source in sources for word in _read(source, column)]
    unique = list(_first_of_each(words))
    if name != STUDY_NOTES and not db.exists():
        found(None, name)  # and no file is made for nothing
    with writing(db, wall_ms()) as writer:
        prompt = named_prompt(writer, name)
        check_fields(prompt, unique)
        added = _add(writer, prompt, unique)
    report_added(prompt, words, unique, added)


def _read(source: str, column: str | None) -> list[Word]:
    if source == "-":
        return _not_silent(read_list(sys.stdin, "standard input", column), "standard input")
    path = Path(source)
    if path.is_file():
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _not_silent(read_list(stream, path.name, column), path.name)
    if path.is_dir():
        raise CrawlerError(
            f"{source} is a directory",
            "a list is a file",
            f"crawler add {quoted(source.rstrip('/') + '/LIST')}",
            Exit.USAGE,
        )
    if path.suffix.lower() in SUFFIXES or "/" in source:
        raise CrawlerError(
            f"there is no file {source}",
            "it looks like the name of a list, so it was not taken for a word",
            "check the path; a word like this can be added through -",
            Exit.USAGE,
        )
    word = word_of(source, {})
    return [word] if word else []


def _not_silent(words: list[Word], name: str) -> list[Word]:
    """Return the words of a list; of one that has none it is said."""
    if not words:
        tell(f"{name} has no word in it")
    return words


def _first_of_each(words: Sequence[Word]) -> Iterable[Word]:
    first: dict[str, Word] = {}
    for word in words:
        first.setdefault(word.text, word)
    return first.values()


def check_fields(prompt: Prompt, words: Sequence[Word]) -> None:
    """Refuse words that lack a field which the prompt needs. Raises CrawlerError."""
    needed = Template(prompt.template).required_names() - {"word"}
    lacking = [word.text for word in words if not needed <= word.fields.keys()] if needed else []
    if lacking:
        raise CrawlerError(
            f"{len(lacking)} of {len(words)} words can't be asked about; none was added",
            f"prompt {prompt.name!r} needs {', '.join(sorted(needed))}, which they have not,"
            f" for example {printable(lacking[0])}",
            "add the column, or put that part of the template in [[ ]] to make it optional",
            Exit.USAGE,
        )


def _add(writer: Writer, prompt: Prompt, words: Sequence[Word]) -> Added:
    total = Added(0, 0, 0)
    for start in range(0, len(words), BATCH):
        added = writer.run(add_words, prompt.id, words[start : start + BATCH], wall_ms())
        total = Added(*(a + b for a, b in zip(total, added, strict=True)))
    return total


def report_added(
    prompt: Prompt, words: Sequence[Word], unique: Sequence[Word], added: Added
) -> None:
    """Tell what has been added, what was known, and what was repeated in the list."""
    known = len(unique) - added.requests
    tell(
        f"{added.requests} added to {prompt.name} version {prompt.version}"
        f" ({prompt.provider}, {prompt.model})" + (f", {known} known already" if known else "")
    )
    if len(unique) < len(words):
        counts = Counter(word.text for word in words)
        repeated = [text for text, n in counts.items() if n > 1]
        examples = ", ".join(map(printable, repeated[:EXAMPLES]))
        more = ", …" if len(repeated) > EXAMPLES else ""
        tell(f"{len(words) - len(unique)} repeated in the list: {examples}{more}")
    if added.other_fields:
        tell(
            f"{added.other_fields} known with other fields: kept, or filled in where there was none"
        )
