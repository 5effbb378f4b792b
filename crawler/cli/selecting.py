"""Selectors as they are typed: WORD…, @FILE, -, --failed, --stale, --state, --first, --prompt.

Rule: every command that is about words takes them from here, and they mean the same in each. A
selector that hits nothing changes nothing.
"""

import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import click

from crawler.cli.options import MOST, found, literal_words
from crawler.cli.terminal import printable
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.intake import Prompt, current_prompt, prompts
from crawler.ledger.items import identities, shown, typed_key
from crawler.ledger.selectors import Chosen, Selectors, chosen, nearest, unknown
from crawler.lists.words import as_added
from crawler.states import RequestState
from crawler.storage.database import Writer, reading

NAMED = 20
"""Words that the way back names."""
PART = 10_000
"""Requests a transaction changes: it takes half a second."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Done = TypeVar("_Done")
TOLD = 5
"""Items that an error names."""
STATES = {"in-flight": RequestState.LEASED, **{state.value: state for state in RequestState}}
"""The states as they are typed; `leased` is what they are called in SQL."""


class Selected(NamedTuple):
    """Words of a prompt's list."""

    prompt: Prompt
    """Its current version."""
    requests: list[Chosen]

    @property
    def ids(self) -> list[int]:
        """The requests' ids."""
        return [request.id for request in self.requests]

    def count(self, state: RequestState) -> int:
        """Return how many of them are in a state."""
        return sum(request.state is state for request in self.requests)


class Typed(NamedTuple):
    """What a person has typed."""

    names: Sequence[str]
    """Of prompts; empty: every current one."""
    selectors: Selectors

    @property
    def is_empty(self) -> bool:
        """Nothing was said of which words."""
        return self.selectors == Selectors()


def selector_options(command: _Command) -> _Command:
    """Give a command the selectors, and the prompts that they are of: see `typed`."""
    named = click.option("--prompt", "prompts", multiple=True, metavar="NAME", help="Of this one.")
    return named(answer_options(command))


def answer_options(command: _Command) -> _Command:
    """Give a command the selectors that are options."""
    options = (
        click.option("--state", "states", metavar="S,…", help=f"{', '.join(list(STATES)[:-1])}."),
        click.option("--failed", is_flag=True, help="Those that have failed."),
        click.option("--stale", is_flag=True, help="Whose prompt or fields have changed since."),
        click.option("--bad", is_flag=True, help="Whose answer is marked bad."),
        click.option(
            "--review", type=click.Choice(["good", "bad", "none"]), help="As crawler mark has it."
        ),
        click.option(
            "--first", type=click.IntRange(1, MOST), metavar="N", help="In the list's order."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def typed(
    words: Sequence[str],
    prompts: Sequence[str],
    states: str | None,
    first: int | None,
    review: Literal["good", "bad", "none"] | None,
    *,
    failed: bool,
    stale: bool,
    bad: bool,
) -> Typed:
    """Return what was typed, with the words of files and of standard input. Raises CrawlerError."""
    named = list(_read_states(states))
    if failed:
        named.append(RequestState.FAILED)
    literal = literal_words(click.get_current_context())
    asked = list(dict.fromkeys([*_words(words), *map(as_added, literal)])) or None
    marked: Literal["good", "bad", "none"] | None = "bad" if bad else review
    return Typed(prompts, Selectors(asked, tuple(dict.fromkeys(named)), stale, marked, first))


def selected(conn: sqlite3.Connection, asked: Typed, *, must_hit: bool = True) -> list[Selected]:
    """Return the words that are meant, by prompt.

    Raises CrawlerError where a word is not known, and where words are named and none is meant, if
    one must be.
    """
    names = [found(current_prompt(conn, name), name) for name in asked.names]
    of = names or [row for row in prompts(conn) if row.current and not row.removed]
    selectors = asked.selectors
    if selectors.words is not None:
        selectors = selectors._replace(words=_known(conn, selectors.words))
    meant = [Selected(prompt, chosen(conn, prompt.id, selectors)) for prompt in of]
    if must_hit and asked.selectors.words and not any(one.requests for one in meant):
        raise _none_is_selected(asked.selectors.words)
    return meant


def command_for(verb: str, words: Sequence[str], options: str = "") -> str:
    """Return a command about words, to be pasted: what might be read otherwise is after a --."""
    named = " ".join(map(quoted, words))
    is_plain = all(_PLAIN.fullmatch(word) and not os.path.lexists(word) for word in words)
    parts = (verb, named, options) if is_plain else (verb, options, "--", named)
    return " ".join(filter(None, parts))


_PLAIN = re.compile(r"[^\W_][^/.]*")
"""What is no option, no path and no name of a list."""


def _none_is_selected(words: Sequence[str]) -> CrawlerError:
    return CrawlerError(
        "none of these words is selected",
        "they are off the list, or the options leave none of them; nothing was changed",
        f"{command_for('crawler show', words[:1])}; what was removed is back with"
        f" {command_for('crawler add', words[:1])}",
        Exit.USAGE,
    )


def changed_in_parts(
    db: Path,
    writer: Writer,
    asked: Typed,
    change: Callable[[sqlite3.Connection, Prompt, list[int]], _Done],
) -> list[tuple[Selected, list[_Done]]]:
    """Change the words that are meant, in transactions for which a running crawl has to wait.

    What each of them changes must be right by itself, whatever others have done before it. It gets
    the version of the prompt that is then the current one. Raises CrawlerError, with nothing
    changed, where a word is not known.
    """
    with reading(db) as conn:
        meant = selected(conn, asked)

    def changed(conn: sqlite3.Connection, name: str, ids: list[int]) -> _Done:
        return change(conn, found(current_prompt(conn, name), name), ids)

    return [
        (
            of_prompt,
            [
                writer.run(changed, of_prompt.prompt.name, of_prompt.ids[nth : nth + PART])
                for nth in range(0, len(of_prompt.requests), PART)
            ],
        )
        for of_prompt in meant
    ]


def _known(conn: sqlite3.Connection, words: Sequence[str]) -> list[str]:
    """Return words by their text or key; a key of several parts is typed as it is shown.

    Raises CrawlerError where one is not known.
    """
    others = set(unknown(conn, words))
    known = [(typed_key(word) or word) if word in others else word for word in words]
    if unknown(conn, known):
        lacking = [word for word, key in zip(words, known, strict=True) if unknown(conn, [key])]
        raise unknown_word(conn, lacking)
    return known


def identity_meant(conn: sqlite3.Connection, named: str, command: str, *others: str) -> str | None:
    """Return what tells the item from others that a text or a key names; None where there is none.

    Raises CrawlerError where it names several: ``command`` with its ``others`` is for one of them.
    """
    known = identities(conn, named)
    if len(known) > 1:
        names = sorted(map(shown, known))
        more = ", …" if len(names) > TOLD else ""
        one = next((name for name in names if name != named), named)
        raise CrawlerError(
            f"{len(known)} words have the text {printable(named)!r}",
            f"it is not clear which is meant: {', '.join(map(printable, names[:TOLD]))}{more}",
            " ".join([command, *map(quoted, (one, *others))]),
            Exit.USAGE,
        )
    return known[0] if known else None


def unknown_word(conn: sqlite3.Connection, lacking: Sequence[str]) -> CrawlerError:
    """Return the error for words that are in no list."""
    word = lacking[0]
    near = nearest(conn, word)
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return CrawlerError(
        f"there is no word {printable(word)!r}{more}",
        "it has not been added to this database; nothing was changed"
        + (f"; the nearest is {printable(near)}" if near else ""),
        command_for("crawler add", [word]),
        Exit.USAGE,
    )


def _read_states(states: str | None) -> Iterable[RequestState]:
    for name in () if states is None else states.split(","):
        if name.strip() not in STATES:
            raise click.BadParameter(
                f"{name.strip()!r} is none of {', '.join(list(STATES)[:-1])}", param_hint="--state"
            )
        yield STATES[name.strip()]


def _words(arguments: Sequence[str]) -> Iterable[str]:
    for argument in arguments:
        if argument == "-":
            yield from _lines(sys.stdin.buffer.read(), "standard input")
        elif argument.startswith("@") and len(argument) > 1:
            yield from _lines(_content(argument[1:]), argument[1:])
        else:
            argument.encode()  # raises UnicodeEncodeError: no word is like that
            yield as_added(argument)


def _content(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise CrawlerError(
            f"the words of {name} can't be read", str(error), "check the path after @", Exit.USAGE
        ) from error


def _lines(content: bytes, name: str) -> Iterable[str]:
    """Yield the words of a file, one a line. Raises CrawlerError where there is none."""
    try:
        lines = [as_added(line) for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise CrawlerError(
            f"the words of {name} can't be read",
            f"it is not UTF-8 text ({error.reason})",
            "write one word a line, in UTF-8",
            Exit.USAGE,
        ) from error
    if not any(lines):
        raise CrawlerError(
            f"there is no word in {name}",
            "a selection that is empty changes nothing; a query before the pipe may have failed",
            "one word a line",
            Exit.USAGE,
        )
    yield from filter(None, lines)
