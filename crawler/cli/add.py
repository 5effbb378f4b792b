"""`crawler add`: words in."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import click

from crawler.cli.adding import (
    PART,
    Counts,
    add_parts,
    check_fields,
    meanwhile,
    parts_of,
    report_added,
    stopped_politely,
    tell_early,
)
from crawler.cli.builtin import STUDY_NOTES, study_notes
from crawler.cli.options import (
    changed_database_option,
    found,
    meant,
    named_prompt,
    prompt_option,
    require_no_other,
)
from crawler.cli.sources import WordsOrFiles, require_sources, words_of
from crawler.cli.terminal import print_line, printable, tell
from crawler.clock import wall_ms
from crawler.errors import count_of
from crawler.ledger.intake import current_prompt, known_words
from crawler.lists.form import Reading
from crawler.protocol import Word
from crawler.storage.database import reading, writing
from crawler.template import Template

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
    how = Reading(column, delimiter, encoding, not no_header)
    require_sources(ctx, sources)
    is_live = "-" in sources
    with stopped_politely():
        parts = parts_of(words_of(ctx, sources, how, tell), is_live=is_live)
        try:
            first = next(parts, [])
            require_no_other(db, name)
            if dry_run:
                _preview(db, name, chain([first], parts))
                return
            if len(first) < PART or is_live:
                parts = chain([first], parts)
            else:  # too long to be kept: it is checked to its end, and then read again
                _check(db, name, chain([first], parts))
                parts = parts_of(words_of(ctx, sources, how, lambda _: None), is_live=False)
        except KeyboardInterrupt:
            tell_early("0 are in")
            raise
        with writing(db, wall_ms()) as writer:
            prompt = named_prompt(writer, name)
            counts, added = add_parts(db, writer, prompt, parts)
    counts.tell_look_alikes()
    report_added(prompt, counts.unique, added)
    counts.tell_repeated()
    if added.other_fields:
        tell(
            f"{added.other_fields} known with other fields: kept, or filled in where there was none"
        )


def _asked(db: Path, name: str | None) -> tuple[str, str]:
    """Return the name and the template of the prompt that is meant. Raises CrawlerError."""
    prompt = None
    if db.exists():
        with reading(db) as conn:
            name = meant(conn, name)
            prompt = current_prompt(conn, name)
    name = name or STUDY_NOTES
    if prompt is None and name != STUDY_NOTES:
        found(None, name)
    return name, prompt.template if prompt else study_notes("local", None).template


def _check(db: Path, named: str | None, parts: Iterable[Sequence[Word]]) -> None:
    """Refuse words that can't be asked about before one is added. Raises CrawlerError."""
    asked, checked = _asked(db, named), 0
    with meanwhile(lambda: f"{count_of(checked, 'word')} checked so far"):
        for part in parts:
            check_fields(db, *asked, part)
            checked += len(part)


def _preview(db: Path, named: str | None, parts: Iterable[Sequence[Word]]) -> None:
    """Tell what adding words would do, and how the first of them would be asked about."""
    name, template = _asked(db, named)
    counts, asked, others = Counts(), 0, 0
    shown: list[Word] = []
    for part in parts:
        words = counts.take(part)
        check_fields(db, name, template, words)
        shown += words[: SHOWN - len(shown)]
        if db.exists():
            with reading(db) as conn:
                prompt = current_prompt(conn, name)
                known = known_words(conn, prompt.id if prompt else None, words)
            asked, others = asked + known[0], others + known[1]
    counts.tell_look_alikes()
    tell(
        f"{counts.unique - asked} of {counts.unique} would be added to {name}; {asked} known"
        f" already, {others} known with other fields; nothing was added"
    )
    for word in shown:
        print_line(f"{printable(word.text)}: {printable(_question(template, word))}")


def _question(template: str, word: Word) -> str:
    """Return what a prompt asks about a word, without its middle where it is long."""
    text = "".join(Template(template).render(word.text, word.fields))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
