"""The live display of a run on a terminal: what it does or waits for, and below it how far it is.

Rule: it only shows what a status says, and each line fits into the width of the terminal: of the
first the end is cut off, of the second the less important parts are left out. What draws it is
imported with the first display, because most runs have no terminal.
"""

from contextlib import suppress
from typing import Any, NamedTuple

from crawler.cli.terminal import as_started, printable, span
from crawler.cli.why import SOON_MS, doing_line
from crawler.ledger.status import LimitStatus, Status

BAR = (8, 40)
"""The narrowest and the widest bar."""
GAP = 2
"""Columns between the bar and what stands beside it."""
NO_BAR_BELOW = 56
"""In a terminal that is narrower than this there is no bar."""


class Signs(NamedTuple):
    """What the display is drawn with."""

    full: str = "━"
    empty: str = "─"
    unknown: str = "…"
    between: str = " · "


ASCII = Signs("#", "-", "...", " | ")
"""For a terminal that has no more."""


class Live:
    """Two lines at the bottom of the terminal, drawn anew four times a second."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - see above
        from rich.live import Live as Display  # noqa: PLC0415

        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._display = Display(
            console=self._console, get_renderable=self._drawn, refresh_per_second=4, transient=True
        )
        self._display.start()

    def show(self, status: Status) -> None:
        """Show a status."""
        self._status = status

    def say(self, text: str) -> None:
        """Print a line above the display."""
        with suppress(OSError):  # the terminal may be gone
            self._console.print(as_started(text), markup=False)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):
            self._display.stop()

    def _drawn(self) -> Any:
        from rich.text import Text  # noqa: PLC0415 - see above

        if self._status is None:
            return Text("starting")
        signs = Signs() if self._console.encoding.startswith("utf") else ASCII
        return Text(drawn(self._status, self._console.width, signs))


def drawn(status: Status, width: int, signs: Signs) -> str:
    """Return the two lines, of at most ``width`` columns."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - see above

    line = doing(status, signs.between)
    if cell_len(line) > width:
        line = set_cell_size(line, width - len(signs.unknown)).rstrip() + signs.unknown
    return f"{line}\n{done(status, width, signs)}"


def doing(status: Status, between: str) -> str:
    """Return what a run does or waits for, the most important first."""
    now_ms = status.now_ms
    several = len(status.limits) > 1
    held = {
        row: f"{printable(row.limit)} {line}" if several else line
        for row in status.limits
        if (line := doing_line(row, now_ms))
    }
    waits = [held[row] for row in sorted(held, key=lambda row: row.until_ms or now_ms * 2)]
    if held and len(held) == len(status.limits):
        return between.join(waits)
    if not status.unfinished:
        return "waits for more words"
    in_flight = sum(row.in_flight for row in status.limits)
    oldest = status.oldest_call
    parts = [
        f"asks: {in_flight} in flight" if in_flight else "starts calls",
        *(_of_minute(row, several=several) for row in status.limits if row.per_minute is not None),
        *([f"the oldest for {span(oldest.age_ms)}"] if oldest and oldest.age_ms >= SOON_MS else []),
    ]
    return between.join([", ".join(parts), *waits])


def _of_minute(limit: LimitStatus, *, several: bool) -> str:
    name = f" of {printable(limit.limit)}" if several else ""
    return f"{limit.started_last_minute}/{limit.per_minute} this minute{name}"


def done(status: Status, width: int, signs: Signs) -> str:
    """Return how far a run is, in a line of at most ``width`` columns where that can be.

    What is done, what has failed and the time left are never left out.
    """
    ended = status.succeeded + status.failed
    total = ended + status.unfinished
    share = ended / total if total else 1.0
    facts = [f"{ended:,}/{total:,}"]
    if status.failed:
        facts.append(f"{status.failed:,} failed")
    facts.append(f"{span(status.eta_ms) if status.eta_ms is not None else signs.unknown} left")
    narrowest, widest = BAR if width >= NO_BAR_BELOW else (0, 0)
    room = width - narrowest - GAP if widest else width
    for more in (f"{status.succeeded_per_minute:.0f} a minute", f"{share:.0%}"):
        longer = [*facts[:-1], more, facts[-1]]
        if len(signs.between.join(longer)) > room:
            break
        facts = longer
    line = signs.between.join(facts)
    bar = min(widest, width - GAP - len(line))
    if bar < narrowest or not widest:
        return line
    full = int(bar * share)
    return f"{signs.full * full}{signs.empty * (bar - full)}{' ' * GAP}{line}"
