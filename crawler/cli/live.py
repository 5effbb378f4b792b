"""The live display of a run on a terminal: one line that tells how far, how fast, and why it waits.

Rule: it only shows what a status says. What draws it is imported with the first display, because
most runs have no terminal.
"""

from contextlib import suppress

from crawler.cli.status import progress_line
from crawler.cli.terminal import printable
from crawler.cli.why import held_line
from crawler.ledger.status import Status


class Live:
    """A progress bar over the requests of the current prompts."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - see above
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
        )

        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=None, facts="starting")
        self._progress.start()

    def show(self, status: Status) -> None:
        """Show a status."""
        done = status.succeeded + status.failed
        with suppress(OSError):  # the terminal may be gone
            self._progress.update(
                self._task,
                completed=done,
                total=done + status.unfinished,
                facts=facts(status),
            )

    def say(self, text: str) -> None:
        """Print a line above the display."""
        with suppress(OSError):
            self._progress.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):
            self._progress.stop()


def facts(status: Status) -> str:
    """Return what is beside the bar: failures, calls in flight, rate, time left, what holds it."""
    parts = []
    failed = status.failed
    if failed:
        parts.append(f"{failed} failed")
    parts.append(f"{sum(limit.in_flight for limit in status.limits)} in flight")
    parts.append(progress_line(status))
    for limit in status.limits:
        name = f"{printable(limit.limit)}: " if len(status.limits) > 1 else ""
        if limit.per_minute is not None:
            parts.append(f"{name}{limit.started_last_minute}/{limit.per_minute} this minute")
        held = held_line(limit, status.now_ms)
        if held:
            parts.append(f"{name}{held}")
    return " · ".join(parts)
