"""Words of a list go into the database part by part, and are counted.

Rule: a list may be longer than the memory, or have no end. What is in stays in: whoever adds the
list again adds the rest. So when it ends early, it is told how many are in.
"""

import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from crawler.cli.columns import nearest
from crawler.cli.keys import Key, require_alike
from crawler.cli.terminal import printable, tell
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, count_of
from crawler.ledger.intake import Added, Prompt, add_words, recorded_fields
from crawler.ledger.items import Corrected, put_key, revised
from crawler.lists.source import NOTHING_ADDED
from crawler.lists.words import look_alikes
from crawler.protocol import Word
from crawler.storage.database import Writer, reading
from crawler.template import Template

PART = 100_000
"""Words a transaction: a running crawl waits for no more, and the log stays short. (The words come
in any order, so each transaction writes most pages of their index.)"""
CORRECTED = 5_000
"""Words a transaction that corrects them."""
PART_S = 4.0
"""For how long words of a pipe wait for others; whether they did is looked at every second."""
TOLD_EVERY = 10
"""Parts, where nobody reads along."""
TOLD_EVERY_S = 2.0
EXAMPLES = 5


class Choice(NamedTuple):
    """What is to become of rows that are known, or that differ where they should not."""

    key: Key
    keep_first: bool
    """Of rows with one key the first is taken; else they must be alike."""
    update: bool
    """Known words get the fields of the list."""

    def take(self, part: Sequence[Word]) -> None:
        """Refuse rows that differ. Raises CrawlerError."""
        if not self.keep_first:
            require_alike(part, self.key)


class Counts:
    """What was found in a list, part by part: repeated words are found within a part."""

    def __init__(self) -> None:
        self.read = 0
        self.unique = 0
        self._repeated: list[str] = []
        self._alike = 0
        self._pairs: list[tuple[str, str]] = []

    def take(self, part: Sequence[Word]) -> list[Word]:
        """Count a part; return the first of each of its words."""
        first: dict[str, Word] = {}
        for word in part:
            first.setdefault(word.identity, word)
        self.read += len(part)
        self.unique += len(first)
        if len(first) < len(part):
            counts = Counter(word.identity for word in part)
            again = (first[identity].text for identity, n in counts.items() if n > 1)
            self._repeated += islice(again, EXAMPLES + 1)
            del self._repeated[EXAMPLES + 1 :]
        pairs = look_alikes(word.text for word in first.values() if word.key is None)
        self._alike += len(pairs)
        self._pairs += pairs[: EXAMPLES - len(self._pairs)]
        return list(first.values())

    def tell_look_alikes(self) -> None:
        """Tell which words nobody can tell apart."""
        if self._alike:
            shown = ", ".join(f"{a!a} and {b!a}" for a, b in self._pairs)
            more = ", …" if self._alike > EXAMPLES else ""
            look = (
                "looks like another word when it is"
                if self._alike == 1
                else ("look like another word when they are")
            )
            tell(f"{self._alike} {look} printed: {shown}{more}")

    def tell_repeated(self) -> None:
        """Tell what was repeated."""
        if self.unique < self.read:
            examples = ", ".join(map(printable, self._repeated[:EXAMPLES]))
            more = ", …" if len(self._repeated) > EXAMPLES else ""
            tell(f"{self.read - self.unique} repeated in the list: {examples}{more}")


def parts_of(words: Iterable[Word | None], *, is_live: bool) -> Iterator[list[Word]]:
    """Yield words in parts; those of a pipe (``is_live``) after some seconds at the latest.

    None among the words is when the time is looked at.
    What was read before an interruption comes as a last part, before the interruption goes on.
    """
    part: list[Word] = []
    begun_at = time.monotonic()
    try:
        for word in words:
            if word is not None:
                part.append(word)
                is_due = len(part) >= PART
            else:
                is_due = bool(is_live and part and time.monotonic() - begun_at >= PART_S)
            if is_due:
                yield part
                part, begun_at = [], time.monotonic()
    except KeyboardInterrupt:
        if is_live and part:
            yield part
        raise
    if part:
        yield part


@contextmanager
def meanwhile(line: Callable[[], str]) -> Iterator[None]:
    """Tell how far it is, on a terminal, every two seconds while something is done."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def tell_on() -> None:
        while not done.wait(TOLD_EVERY_S):
            tell(line())

    teller = threading.Thread(target=tell_on, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def check_fields(
    db: Path, name: str, template: str, words: Sequence[Word], *, update: bool = False
) -> None:
    """Refuse words that lack a field which the prompt needs, here and on record.

    ``update``: what is on record of a column of the list counts no more. Raises CrawlerError.
    """
    needed = Template(template).required_names() - {"word"}
    lacking = [word for word in words if not needed <= word.fields.keys()] if needed else []
    if lacking and db.exists():
        with reading(db) as conn:
            lacking = [
                word for word in lacking if not needed <= _fields_after(conn, word, update=update)
            ]
    if lacking:
        columns = list(dict.fromkeys(column for word in words for column in word.fields))
        missing = sorted(needed - set(columns)) or sorted(needed)
        near = nearest(missing[0], columns)
        raise CrawlerError(
            f"{len(lacking)} of {count_of(len(words), 'word')} can't be asked about;"
            " none was added",
            (f"the list has {', '.join(map(printable, columns))}: " if columns else "")
            + f"prompt {name!r} needs {', '.join(missing)}, which they have not,"
            f" for example {printable(lacking[0].text)}",
            f"write {{{printable(near)}}} in the template (crawler prompt edit)"
            if near not in (None, missing[0])
            else "add the column, or put that part of the template in [[ ]] to make it optional",
            Exit.USAGE,
        )


def _fields_after(conn: sqlite3.Connection, word: Word, *, update: bool) -> set[str]:
    """Return the fields that a word will have when it is added."""
    known = recorded_fields(conn, word.identity).keys()
    return word.fields.keys() | (known - set(word.columns)) if update else set(known)


def add_parts(
    db: Path, writer: Writer, prompt: Prompt, parts: Iterable[Sequence[Word]], choice: Choice
) -> tuple[Counts, Added, Corrected]:
    """Add words part by part; return what was found and what has changed.

    Where it ends early, tell how many are in. Raises CrawlerError.
    """
    counts, total, done = Counts(), Added(0, 0, 0, 0), 0
    corrected = Corrected(0, 0)

    def so_far() -> str:
        return f"{count_of(counts.read, 'word')} read, {total.requests} added so far"

    try:
        with meanwhile(so_far):
            for part in parts:
                choice.take(part)
                words = counts.take(part)
                check_fields(db, prompt.name, prompt.template, words, update=choice.update)
                if choice.update:
                    for nth in range(0, len(words), CORRECTED):
                        more = writer.run(revised, words[nth : nth + CORRECTED], wall_ms())
                        corrected = Corrected(*map(sum, zip(corrected, more, strict=True)))
                added = writer.run(_add, prompt.id, words, choice.key, wall_ms())
                total = Added(*(a + b for a, b in zip(total, added, strict=True)))
                done += 1
                if done % TOLD_EVERY == 0:
                    writer.checkpoint()  # else the log would be larger than the file many times
                    if not sys.stderr.isatty():
                        tell(so_far())
    except BaseException as error:
        if done or isinstance(error, KeyboardInterrupt):
            tell_early(f"{total.requests} added to {prompt.name} are in")
        if done and isinstance(error, CrawlerError):
            error.what = error.what.removesuffix(NOTHING_ADDED)
        raise
    return counts, total, corrected


def _add(
    conn: sqlite3.Connection, prompt_id: int, words: Sequence[Word], key: Key, now_ms: int
) -> Added:
    if key.is_asked:
        put_key(conn, key.columns, key.word)
    return add_words(conn, prompt_id, words, now_ms)


def tell_early(how_many: str) -> None:
    """Tell of a list that was not added to its end."""
    tell(f"it ended early: {how_many}; add the list again for the rest")


@contextmanager
def stopped_politely() -> Iterator[None]:
    """Make of the signals that ask a program to end what Ctrl-C is."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    asked = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in asked:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)


def tell_corrected(corrected: Corrected) -> None:
    """Tell how many words have changed, and what that means for their answers."""
    words, stale = corrected
    told = f"{count_of(words, 'word')} changed"
    if stale:
        told += (
            f"; {stale} {'answer is' if stale == 1 else 'answers are'} stale"
            " (ask again: crawler retry --stale)"
        )
    tell(told)


def report_added(prompt: Prompt, unique: int, added: Added) -> None:
    """Tell how many words have been added, and how many were known."""
    known = unique - added.requests
    tell(
        f"{added.requests} added to {prompt.name} version {prompt.version}"
        f" ({prompt.provider}, {prompt.model})" + (f", {known} known already" if known else "")
    )
