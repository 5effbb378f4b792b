"""`crawler add`: words in."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from crawler.cli.builtin import STUDY_NOTES, study_notes
from crawler.cli.options import (
    changed_database_option,
    found,
    meant,
    named_prompt,
    prompt_option,
    require_no_other,
)
from crawler.cli.sources import WordsOrFiles, words_of
from crawler.cli.terminal import print_line, printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit
from crawler.ledger.intake import Added, Prompt, add_words, current_prompt, known_words
from crawler.lists.form import Reading
from crawler.lists.words import look_alikes
from crawler.protocol import Word
from crawler.storage.database import Writer, reading, writing
from crawler.template import Template

BATCH = 100_000
"""Words a transaction: a running crawl waits for no more, and the log stays short. (The words come
in any order, so each transaction writes most pages of their index.)"""
EXAMPLES = 5
LONGEST = 300
"""Characters of a question that are shown."""
SHOWN = 3
"""Words of a preview."""


@click.command(
    cls=WordsOrFiles,
    epilog="""\b
Examples:
  crawler add words.csv
  crawler add terms.xlsx --column Term --prompt study-notes
  crawler add abrogate laconic
  crawler add -- and/or verbs.csv     (two words)
  cut -f1 list.tsv | crawler add -""",
)
@click.argument("sources", nargs=-1, metavar="WORD|FILE|-...")
@prompt_option("What to ask.")
@click.option("--column", help="The column or key of the word.  [default: word, or the only one]")
@click.option("--delimiter", help="What separates cells: one character, tab, none.")
@click.option("--encoding", help="How the characters are written, such as cp1252.")
@click.option("--no-header", is_flag=True, help="The first row is an item; columns are numbers.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be added, and add nothing.")
@changed_database_option
@click.pass_context
def add(
    ctx: click.Context,
    sources: Sequence[str],
    *,
    name: str | None,
    column: str | None,
    delimiter: str | None,
    encoding: str | None,
    no_header: bool,
    dry_run: bool,
    db: Path,
) -> None:
    """Add words, and ask a prompt about each of them.

    An existing file is read: text, CSV and its relatives, JSON, xlsx, parquet, also packed by gzip;
    the other columns become fields of the word. - is standard input, anything else is a word, and
    after -- everything is. What is there already stays as it is.
    """
    words = words_of(ctx, sources, Reading(column, delimiter, encoding, not no_header))
    unique = list(_first_of_each(words))
    _tell_look_alikes(unique)
    require_no_other(db, name)
    if dry_run:
        _preview(db, name, unique)
        return
    with writing(db, wall_ms()) as writer:
        prompt = named_prompt(writer, name)
        check_fields(prompt.name, prompt.template, unique)
        added = _add(writer, prompt, unique)
    report_added(prompt, words, unique, added)


def _tell_look_alikes(words: Sequence[Word]) -> None:
    pairs = look_alikes(word.text for word in words)
    if pairs:
        shown = ", ".join(f"{a!a} and {b!a}" for a, b in pairs[:EXAMPLES])
        more = ", …" if len(pairs) > EXAMPLES else ""
        tell(f"{len(pairs)} look like another word when they are printed: {shown}{more}")


def _preview(db: Path, name: str | None, words: Sequence[Word]) -> None:
    """Tell what adding words would do, and how the first of them would be asked about."""
    prompt, asked, others = None, 0, 0
    if db.exists():
        with reading(db) as conn:
            name = meant(conn, name)
            prompt = current_prompt(conn, name)
            asked, others = known_words(conn, prompt.id if prompt else None, words)
    name = name or STUDY_NOTES
    if prompt is None and name != STUDY_NOTES:
        found(None, name)
    template = prompt.template if prompt else study_notes("local", None).template
    check_fields(name, template, words)
    tell(
        f"{len(words) - asked} of {len(words)} would be added to {name}; {asked} known already,"
        f" {others} known with other fields; nothing was added"
    )
    for word in words[:SHOWN]:
        print_line(f"{printable(word.text)}: {printable(_question(template, word))}")


def _question(template: str, word: Word) -> str:
    """Return what a prompt asks about a word, without its middle where it is long."""
    text = "".join(Template(template).render(word.text, word.fields))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def _first_of_each(words: Sequence[Word]) -> Iterable[Word]:
    first: dict[str, Word] = {}
    for word in words:
        first.setdefault(word.text, word)
    return first.values()


def check_fields(name: str, template: str, words: Sequence[Word]) -> None:
    """Refuse words that lack a field which the prompt needs. Raises CrawlerError."""
    needed = Template(template).required_names() - {"word"}
    lacking = [word.text for word in words if not needed <= word.fields.keys()] if needed else []
    if lacking:
        raise CrawlerError(
            f"{len(lacking)} of {len(words)} words can't be asked about; none was added",
            f"prompt {name!r} needs {', '.join(sorted(needed))}, which they have not,"
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
