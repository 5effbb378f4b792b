"""`crawler seed`: the list of words, written by a model.

Rule: the list is an answer like any other, to the prompt `word-list`: on record, limited, tried
again. It is read anew each time, so whoever is interrupted begins again and pays for nothing twice.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from crawler.cli.adding import report_added
from crawler.cli.builtin import WORD_LIST, list_word, word_list
from crawler.cli.one import Asked, answer_one, put_request
from crawler.cli.options import (
    MOST,
    changed_database_option,
    endpoint_option,
    named_prompt,
    named_value,
    one_argument,
    prompt_option,
)
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.control import cancel, word_id
from crawler.ledger.intake import Added, Prompt, PromptSpec, add_words, put_prompt
from crawler.ledger.limits import put_limit
from crawler.ledger.results import Result, has_answers, last_answered, result, results
from crawler.ledger.takeover import put_default_limit
from crawler.lists.model_list import CUT_OFF, REPEATED, LeftOut, read_items
from crawler.lists.words import word_of
from crawler.protocol import Word
from crawler.providers import check_params, kind_of, model_for
from crawler.states import RequestState
from crawler.storage.database import writing
from crawler.template import Template

MOST_PARTS = 100
EXAMPLES = 5


@click.command(
    epilog="""\b
Examples:
  crawler seed "vocabulary words to study for the GMAT"
  crawler seed "Romance loanwords in English" --count 200 --provider vertex
Run it again to go on where it was interrupted, or with a larger --count for more.""",
)
@click.argument("topic", nargs=-1, required=True, metavar="TOPIC", callback=one_argument)
@click.option("--count", type=click.IntRange(1, MOST), help="How many; asked on until they are.")
@prompt_option("To be asked.")
@click.option(
    "--provider",
    help="Who writes the list.  [default: who wrote the last one, else who answers the prompt]",
)
@click.option("--model", help="Likewise.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="For the provider.")
@endpoint_option
@changed_database_option
def seed(
    topic: str,
    count: int | None,
    name: str | None,
    provider: str | None,
    model: str | None,
    params: Sequence[str],
    db: Path,
) -> None:
    """Have a model write the list of words, and add them.

    TOPIC ends the sentence "Write a list of …". A list that was cut off is asked on, and without
    --count one that was asked for with it.
    """
    given = word_of(" ".join(topic.split()), {})
    if given is None:
        raise click.UsageError("there is no topic")
    with writing(db, wall_ms()) as writer:
        target = named_prompt(writer, name)
        _check_listable(target)
        named = dict(named_value(text) for text in params)
        lister = writer.run(_put_lister, target, provider, model, named)
    _Seeding(db, given.text, count, lister, target).run()


def _check_listable(target: Prompt) -> None:
    """Refuse a prompt that needs more of a word than a model's list has. Raises CrawlerError."""
    needed = sorted(Template(target.template).required_names() - {"word"})
    if needed:
        raise CrawlerError(
            f"a list that a model writes can't be asked about with the prompt {target.name!r}",
            f"it needs {', '.join(needed)}, and such a list has nothing but words",
            f"crawler add LIST.csv --prompt {quoted(target.name)}, with that column; or put that"
            " part of the template in [[ ]] to make it optional",
            Exit.USAGE,
        )


def _put_lister(
    conn: sqlite3.Connection,
    target: Prompt,
    provider: str | None,
    model: str | None,
    params: Mapping[str, Any],
) -> Prompt:
    """Return the prompt that lists, as the options, the last list or the target have it."""
    last = last_answered(conn, WORD_LIST)
    usual = last or target
    if last is not None and not (provider or model or params):
        spec = PromptSpec(last.name, last.template, last.provider, last.model, last.params)
        return put_prompt(conn, spec, put_limit(conn, last.limit, 1), wall_ms())[0]
    name = provider or usual.provider
    wanted = model_for(name, model or (usual.model if name == usual.provider else None))
    spec = word_list(name, wanted, params)
    check_params(spec.provider, spec.model, spec.params)
    limit_id = put_default_limit(conn, spec, kind_of(name).concurrency)
    prompt, _ = put_prompt(conn, spec, limit_id, wall_ms())
    return prompt


def _put_part(
    conn: sqlite3.Connection, lister: Prompt, part: Word, now_ms: int
) -> tuple[int, Result]:
    # Looked for and put in one transaction: else two seeds at once would pay for it twice.
    part = _known(conn, lister, part) or part
    request_id = put_request(conn, lister, part, now_ms)
    return request_id, result(conn, lister.id, part.text)


def _cancel(conn: sqlite3.Connection, lister_id: int, part: str) -> None:
    part_id = word_id(conn, part)
    assert part_id is not None
    cancel(conn, [lister_id], [part_id])


def _known(conn: sqlite3.Connection, lister: Prompt, part: Word) -> Word | None:
    """Return the same part as it is on record, answered or else waited for.

    How many words were missing then makes no other part of it.
    """
    wanted = {**part.fields, "count": ""}
    rows = [
        row
        for row in results(conn, lister.id)
        if row.version == lister.version and {**row.fields, "count": ""} == wanted
    ]
    for state in (RequestState.SUCCEEDED, RequestState.PENDING, RequestState.LEASED):
        for row in rows:
            if row.state == state:
                return Word(row.word, row.fields)
    return None


class _Seeding:
    """One list, part by part."""

    def __init__(
        self, db: Path, topic: str, count: int | None, lister: Prompt, target: Prompt
    ) -> None:
        self._db = db
        self._topic = topic
        self._count = count
        self._lister = lister
        self._target = target
        self._items: dict[str, str] = {}
        self._left_out: list[LeftOut] = []
        self._added = Added(0, 0, 0, 0)
        self._asked = ""

    def run(self) -> None:
        tell(f"{self._lister.model} ({self._lister.provider}) lists {self._topic}")
        for _ in range(MOST_PARTS):
            answer = self._ask()
            self._asked = answer.word
            new = self._take(answer)
            self._add(new)
            if not new or not self._goes_on(answer):
                break
        else:
            tell(f"stopped after {MOST_PARTS} answers, though the list goes on")
        self._report()

    def _missing(self) -> int | None:
        return None if self._count is None else max(0, self._count - len(self._items))

    def _goes_on(self, answer: Result) -> bool:
        """Tell whether more is wanted than a part has brought, and may be had."""
        if self._count is not None:
            return self._missing() != 0
        # Whoever asked for so many of them was not told where the list ends.
        return answer.truncated or "count" in answer.fields

    def _ask(self) -> Result:
        """Return the next part of the list; asked for only where it is not on record."""
        part = list_word(self._topic, self._missing(), list(self._items.values()))
        request_id, known = self._put(part)
        if known.text is not None:
            return known
        try:
            return answer_one(self._db, self._lister, known.word, request_id, self._told())
        except CrawlerError as error:
            self._give_up(known.word, error)
            if error.exit_code is Exit.WORK_LEFT:
                raise
            hint = f"{error.hint}; another writes the list with --model, --provider or --param"
            raise CrawlerError(error.what, error.cause, hint, error.exit_code) from error

    def _told(self) -> Asked:
        named = f"--prompt {quoted(self._target.name)}"
        return Asked(f"list of {self._topic}", f"crawler seed {quoted(self._topic)} {named}")

    def _give_up(self, part: str, error: CrawlerError) -> None:
        """Leave no request that a run would stumble over.

        One that was only stopped stays pending where its model has written a list before.
        """
        with writing(self._db, wall_ms()) as writer:
            if error.exit_code is Exit.WORK_LEFT and writer.run(has_answers, self._lister.id):
                return
            writer.run(_cancel, self._lister.id, part)

    def _put(self, part: Word) -> tuple[int, Result]:
        """Put a part on record if it is not; return its request, and what is known of it."""
        with writing(self._db, wall_ms()) as writer:
            return writer.run(_put_part, self._lister, part, wall_ms())

    def _take(self, answer: Result) -> list[str]:
        """Return what a part brings that no part before it had."""
        found = read_items(answer.text or "", truncated=answer.truncated)
        # Half a word is asked for again with the next part; only that of the last is left out.
        self._left_out = [piece for piece in self._left_out if piece.reason != CUT_OFF]
        self._left_out += found.left_out
        new = []
        for item in found.kept:
            if item.casefold() in self._items:
                self._left_out.append(LeftOut(item, REPEATED))
            elif self._missing() == 0:
                self._left_out.append(LeftOut(item, "more than were wanted"))
            else:
                self._items[item.casefold()] = item
                new.append(item)
        return new

    def _add(self, new: Sequence[str]) -> None:
        words = [Word(item, {}) for item in new]
        with writing(self._db, wall_ms()) as writer:
            added = writer.run(add_words, self._target.id, words, wall_ms())
        self._added = Added(*(a + b for a, b in zip(self._added, added, strict=True)))

    def _report(self) -> None:
        if self._items:
            report_added(self._target, len(self._items), self._added)
        by_reason: dict[str, list[str]] = defaultdict(list)
        for piece in self._left_out:
            by_reason[piece.reason].append(piece.text)
        for reason, texts in by_reason.items():
            examples = ", ".join(printable(text.strip()[:40]) for text in texts[:EXAMPLES])
            more = ", …" if len(texts) > EXAMPLES else ""
            tell(f"{len(texts)} left out, {reason}: {examples}{more}")
        if not self._items:
            raise CrawlerError(
                "there is no word in the answer",
                "the model wrote something else than a list",
                f"crawler show {quoted(self._asked)} shows it; ask another: --model, --provider",
                Exit.SOME_FAILED,
            )
        if self._missing():
            tell(f"{len(self._items)} of {self._count}: the model has no more")
