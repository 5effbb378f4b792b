"""`crawler add`: words in."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import click

from crawler.cli.adding import (
    PART,
    Choice,
    Counts,
    add_parts,
    check_fields,
    meanwhile,
    parts_of,
    report_added,
    stopped_politely,
    tell_corrected,
    tell_early,
)
from crawler.cli.builtin import STUDY_NOTES, study_notes
from crawler.cli.keys import keyed, read_key
from crawler.cli.options import (
    WordsOrFiles,
    changed_database_option,
    found,
    meant,
    named_prompt,
    prompt_option,
    require_no_other,
)
from crawler.cli.sources import require_sources, typed_words, words_of
from crawler.cli.terminal import print_line, printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, count_of, quoted
from crawler.ledger.intake import Added, current_prompt, known_words
from crawler.ledger.items import corrections, identities, key_columns, renamed, shown
from crawler.ledger.standing import bring_back
from crawler.lists.form import Reading
from crawler.protocol import Word
from crawler.storage.database import reading, require_database, writing
from crawler.storage.upgrade import newest_version
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
@click.option("--key", metavar="C,…", help="The columns that tell rows apart: --key lemma,pos.")
@click.option("--keep-first", is_flag=True, help="Of rows with one key that differ take the first.")
@click.option("--update", is_flag=True, help="Give known words the fields of the list.")
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
    key: str | None,
    keep_first: bool,
    update: bool,
    dry_run: bool,
    db: Path,
) -> None:
    """Add words, and ask a prompt about each of them.

    An existing file is read: text, CSV and its relatives, JSON, xlsx, parquet, also packed by gzip;
    the other columns become fields of the word. - is standard input, anything else is a word, and
    after -- everything is.

    Rows that are equal in all columns are one; those with one key that differ are refused, unless
    --key or --keep-first says what is meant. What is there already stays as it is, but for
    --update. A word that was removed is back when it is typed, and not when a list has it.
    """
    how = Reading(column, delimiter, encoding, not no_header)
    told_apart = read_key(key, _stored_key(db), column)
    if update and told_apart.is_stored:
        told_apart = told_apart._replace(is_asked=True)  # else it would add, and not correct
    choice = Choice(told_apart, keep_first, update)
    require_sources(ctx, sources)
    is_live = "-" in sources
    typed = typed_words(ctx, sources)

    def read(say: Callable[[str], None]) -> Iterator[list[Word]]:
        return parts_of(keyed(words_of(ctx, sources, how, say), told_apart), is_live=is_live)

    with stopped_politely():
        parts = read(tell)
        try:
            first = next(parts, [])
            require_no_other(db, name)
            if dry_run:
                _preview(db, name, typed, chain([first], parts), choice)
                return
            if len(first) < PART or is_live:
                parts = chain([first], parts)
            else:  # too long to be kept: it is checked to its end, and then read again
                _check(db, name, chain([first], parts), choice)
                parts = read(lambda _: None)
        except KeyboardInterrupt:
            tell_early("0 are in")
            raise
        _put(db, name, typed, parts, choice)


def _put(
    db: Path,
    name: str | None,
    typed: Sequence[str],
    parts: Iterable[Sequence[Word]],
    choice: Choice,
) -> None:
    """Add words part by part, and tell what has come of it."""
    with writing(db, wall_ms()) as writer:
        prompt = named_prompt(writer, name)
        back, known = writer.run(_bring_back, prompt.id, typed)
        former: dict[str, str] = {}

        def meant(part: Sequence[Word]) -> list[Word]:
            former.update(writer.run(renamed, _listed(part, typed)))
            others = (one for one in part if one.identity not in former)
            return [one for one in others if one.key or one not in known]

        counts, added, corrected = add_parts(db, writer, prompt, map(meant, parts), choice)
    counts.tell_look_alikes()
    report_added(prompt, counts.unique, added)
    counts.tell_repeated()
    _tell_renamed(former)
    if choice.update:
        tell_corrected(corrected)
        added = added._replace(other_fields=0)
    _tell_known(added, back)


def _bring_back(
    conn: sqlite3.Connection, prompt_id: int, typed: Sequence[str]
) -> tuple[int, list[Word]]:
    """Put typed words on the list again if they were removed; return how many.

    Return with it those that are the text of items with keys of their own: they are no new words.
    """
    meant = {text: identities(conn, text) for text in typed}
    known = [text for text, found in meant.items() if found and text not in found]
    back = bring_back(conn, prompt_id, chain.from_iterable(meant.values()))
    return back, [Word(text, {}) for text in known]


def _tell_known(added: Added, back: int) -> None:
    """Tell what was known in another way, and who was removed."""
    if added.other_fields:
        tell(
            f"{added.other_fields} known with other fields: kept, or filled in where there was"
            " none; to take those of the list: --update"
        )
    if back:
        tell(f"{back} on the list again, with what was answered")
    if added.removed:
        tell(
            f"{added.removed} {'was' if added.removed == 1 else 'were'} removed and"
            f" {'stays' if added.removed == 1 else 'stay'} so; who types a word brings it back:"
            " crawler add WORD"
        )


def _listed(part: Iterable[Word], typed: Sequence[str]) -> list[str]:
    """Return what tells the items of lists from others, and not of typed words."""
    known = set(typed)
    return [word.identity for word in part if word.identity not in known]


def _tell_renamed(former: Mapping[str, str]) -> None:
    """Tell which items of a list have another text now."""
    for old, new in islice(former.items(), 1):
        one = len(former) == 1
        tell(
            f"{len(former)} {'was' if one else 'were'} renamed, and a list does not bring"
            f" {'it' if one else 'them'} back: {printable(shown(old))} is {printable(shown(new))}"
            f" now; as a word of its own: crawler add -- {quoted(shown(old))}"
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


def _check(db: Path, named: str | None, parts: Iterable[Sequence[Word]], choice: Choice) -> None:
    """Refuse words that can't be asked about before one is added. Raises CrawlerError."""
    asked, checked = _asked(db, named), 0
    with meanwhile(lambda: f"{count_of(checked, 'word')} checked so far"):
        for part in parts:
            choice.take(part)
            check_fields(db, *asked, part, update=choice.update)
            checked += len(part)


def _stored_key(db: Path) -> Sequence[str]:
    """Return the columns of the key of a file; none of one that is new, or of an older version.

    What else is wrong with a file is told when it is opened to write.
    """
    with suppress(CrawlerError):
        if db.exists() and require_database(db) == newest_version():
            with reading(db) as conn:
                return key_columns(conn)
    return ()


def _preview(
    db: Path,
    named: str | None,
    typed: Sequence[str],
    parts: Iterable[Sequence[Word]],
    choice: Choice,
) -> None:
    """Tell what adding words would do, and how the first of them would be asked about."""
    name, template = _asked(db, named)
    counts, asked, others, changed = Counts(), 0, 0, 0
    first: list[Word] = []
    former: dict[str, str] = {}
    for part in parts:
        choice.take(part)
        if db.exists():
            with reading(db) as conn:
                former.update(renamed(conn, _listed(part, typed)))
        words = counts.take([word for word in part if word.identity not in former])
        check_fields(db, name, template, words, update=choice.update)
        first += words[: SHOWN - len(first)]
        if db.exists():
            with reading(db) as conn:
                prompt = current_prompt(conn, name)
                known = known_words(conn, prompt.id if prompt else None, words)
                if choice.update:
                    changed += corrections(conn, words)
            asked, others = asked + known[0], others + known[1]
    counts.tell_look_alikes()
    tell(
        f"{counts.unique - asked} of {counts.unique} would be added to {name}; {asked} known"
        f" already, {others} known with other fields; nothing was added"
    )
    if choice.update:
        tell(f"{changed} would change")
    _tell_renamed(former)
    for word in first:
        print_line(f"{printable(word.text)}: {printable(_question(template, word))}")


def _question(template: str, word: Word) -> str:
    """Return what a prompt asks about a word, without its middle where it is long."""
    text = "".join(Template(template).render(word.text, word.fields))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
