"""`crawler ask`: one word now, and its answer as it comes."""

import sqlite3
import sys
from pathlib import Path

import click

from crawler.cli.adding import check_fields
from crawler.cli.one import Asked, answer_one, put_request
from crawler.cli.options import (
    changed_database_option,
    endpoint_option,
    named_prompt,
    one_argument,
    prompt_option,
    require_no_other,
)
from crawler.cli.selecting import identity_meant
from crawler.cli.terminal import moment, print_line, printable, printable_lines, tell
from crawler.clock import wall_ms
from crawler.errors import quoted
from crawler.ledger.control import word_id
from crawler.ledger.intake import Prompt
from crawler.ledger.results import answer
from crawler.ledger.standing import bring_back
from crawler.lists.words import word_of
from crawler.protocol import Call, Row, Word
from crawler.storage.database import writing


@click.command(epilog="Examples: crawler ask laconic · crawler ask laconic --prompt define")
@click.argument("word", nargs=-1, required=True, metavar="WORD", callback=one_argument)
@prompt_option("What to ask.")
@endpoint_option
@changed_database_option
def ask(word: str, name: str | None, db: Path) -> None:
    """Ask about one word now, and print the answer; on a terminal as it comes.

    It is recorded like any other, under the same limit; what has an answer is not asked again.
    """
    given = word_of(word, {})
    if given is None:
        raise click.UsageError("there is no word to ask about")
    require_no_other(db, name)
    with writing(db, wall_ms()) as writer:
        prompt = named_prompt(writer, name)
        meant = writer.run(_meant, given)
        writer.run(bring_back, prompt.id, [meant.identity])
        known = writer.run(answer, prompt.id, meant.identity)
        if known is None:
            if writer.run(word_id, meant.identity) is None:
                check_fields(db, prompt.name, prompt.template, [meant])
            request_id = writer.run(put_request, prompt, meant, wall_ms())
    if known is None:
        _ask(db, prompt, meant, request_id)
    else:
        print_line(printable_lines(known.text))
        stale = f"; stale: crawler retry {quoted(given.text)} asks again" if known.stale else ""
        tell(f"answered at {moment(known.finished_at_ms)}; not asked again{stale}")


def _meant(conn: sqlite3.Connection, given: Word) -> Word:
    """Return the item that a person names by its text or its key. Raises CrawlerError."""
    identity = identity_meant(conn, given.text, "crawler ask")
    if identity in (None, given.text):
        return given
    return Row(given.text, {}, (), identity)


def _ask(db: Path, prompt: Prompt, word: Word, request_id: int) -> None:
    """Ask, and print the answer; on a terminal as it comes. Raises CrawlerError if there is none.

    Elsewhere only the answer that is on record is printed: what failed before it is none.
    """
    again = f"crawler ask {quoted(word.text)} --prompt {quoted(prompt.name)}"
    asked = Asked(f"answer about {printable(word.text)!r}", again)
    reader = _Reader() if sys.stdout.isatty() else None
    try:
        found = answer_one(db, prompt, word.identity, request_id, asked, reader)
    finally:
        if reader is not None:
            reader.end_line()
    if reader is not None and reader.gone is not None:
        raise reader.gone
    if reader is None or reader.number != found.attempts:
        print_line(
            printable_lines(found.text)
        )  # of a provider that tells nothing, or another process


class _Reader:
    """Prints the pieces of an answer on a terminal, without the blanks around it: as it is stored.

    Whoever reads along may go away. That costs no answer: what comes then is not printed, and why
    is told in the end.
    """

    def __init__(self) -> None:
        self.number = 0
        """Of the attempt that was printed; 0 where none was."""
        self.gone: OSError | UnicodeError | None = None
        self._in_line = False
        self._blanks = ""  # held back until it is known that something follows

    def read(self, call: Call, text: str) -> None:
        """Print a piece of a call's answer; the first one after its prefill."""
        if self.gone is not None:
            return
        try:
            if call.number != self.number:
                self._begin(call)
            self._print(text)
        except (OSError, UnicodeError) as error:
            self.gone = error

    def end_line(self) -> None:
        """End the line that was begun."""
        if self._in_line and self.gone is None:
            print_line()
        self._in_line = False

    def _begin(self, call: Call) -> None:
        self.end_line()
        self.number = call.number
        self._blanks = ""
        self._print(call.prefill)

    def _print(self, text: str) -> None:
        text = self._blanks + text
        seen = text.rstrip()
        self._blanks = text[len(seen) :]
        if seen:
            sys.stdout.write(printable_lines(seen if self._in_line else seen.lstrip()))
            sys.stdout.flush()
            self._in_line = True
