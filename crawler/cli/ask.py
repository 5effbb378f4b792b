"""`crawler ask`: one word now, and its answer as it comes."""

import sys
from pathlib import Path

import click

from crawler.builtin import STUDY_NOTES
from crawler.cli.add import check_fields
from crawler.cli.one import answer_one, put_request, stored_result
from crawler.cli.options import database_option, endpoint_option, found, named_prompt
from crawler.cli.terminal import moment, print_line, printable, tell
from crawler.clock import wall_ms
from crawler.database import writing
from crawler.ledger.control import word_id
from crawler.ledger.intake import Word
from crawler.providers.protocol import Call
from crawler.words import word_of


@click.command(epilog="Examples: crawler ask laconic · crawler ask laconic --prompt define")
@click.argument("word")
@click.option("--prompt", "name", default=STUDY_NOTES, help="What to ask.", show_default=True)
@endpoint_option
@database_option
def ask(word: str, name: str, db: Path) -> None:
    """Ask about one word now, and print the answer as it comes.

    It is recorded like any other, under the same limit; what has an answer is not asked again.
    """
    given = word_of(word, {})
    if given is None:
        raise click.UsageError("there is no word to ask about")
    if name != STUDY_NOTES and not db.exists():
        found(None, name)  # and no file is made for nothing
    with writing(db, wall_ms()) as writer:
        prompt = named_prompt(writer, name)
        if writer.run(word_id, given.text) is None:
            check_fields(prompt, [Word(given.text, {})])
        request_id = put_request(writer, prompt, given, wall_ms())
    known = stored_result(db, prompt, given.text)
    if known.text is not None:
        print_line(printable(known.text))
        tell(f"answered at {moment(known.finished_at_ms)}; not asked again")
        return
    reader = _Reader()
    answer = answer_one(db, prompt, given.text, request_id, reader.read)
    print_line("" if reader.number else printable(answer.text))


class _Reader:
    """Prints the pieces of an answer."""

    def __init__(self) -> None:
        self.number = 0

    def read(self, call: Call, text: str) -> None:
        if call.number != self.number:
            if self.number:
                print_line()
                tell("that attempt failed; asked again")
            self.number = call.number
            sys.stdout.write(printable(call.prefill))
        sys.stdout.write(printable(text))
        sys.stdout.flush()
