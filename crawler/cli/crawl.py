"""A run at a terminal or in the background: signals, display, log, exit code.

Rule: the first signal stops politely, the second at once; both leave a file to run again with.
"""

import asyncio
import gc
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from crawler.cli.builtin import WORD_LIST
from crawler.cli.live import Live
from crawler.cli.terminal import tell
from crawler.errors import CrawlerError, count_of
from crawler.ledger.clocks import file_ms
from crawler.ledger.status import Status
from crawler.ledger.status import status as status_of
from crawler.logs import Log, heard, json_lines
from crawler.policy import Policy
from crawler.run.ending import EXIT_CODES, Ending, Reason, RunOptions, error_of, exit_code
from crawler.run.loop import Loop
from crawler.run.session import crawl_store
from crawler.storage.store import open_store

REPORT_EVERY_S = 10
SAME_SIGNAL_S = 0.3
"""Some senders (timeout, a terminal and a script) signal process and group: that is one signal."""


def crawl(db: Path, policy: Policy, options: RunOptions) -> int:
    """Run the crawl of a file; return the exit code. Raises CrawlerError."""
    live = Live() if sys.stderr.isatty() else None
    try:
        ending, status = asyncio.run(_crawl(db, policy, options, live))
    finally:
        if live:
            live.stop()
    error = error_of(ending)
    if live:
        _tell_ending(ending, status, error)
    if error is not None:
        raise error
    return exit_code(ending)


async def _crawl(
    db: Path, policy: Policy, options: RunOptions, live: Live | None
) -> tuple[Ending, Status]:
    log = heard(partial(tell_warning, live.say)) if live else json_lines()

    def on_start(run: Loop) -> None:
        freeze_imports()
        install_signal_handlers(run, live.say if live else None, live.stop if live else None)

    async with open_store(db) as store:
        ending = await crawl_store(
            store,
            policy,
            options,
            log,
            on_status=live.show if live else _reporter(log),
            on_start=on_start,
        )
        return ending, await store.run(_final_status, policy.guard_ms)


def tell_warning(say: Callable[[str], None], event: str, fields: Mapping[str, Any]) -> None:
    """Tell a person what was logged, where it is for persons: an exposed key, wrong counts."""
    if event == "key_exposed":
        say(f"the key goes to {fields['host']} in plain text: its address begins with http://")
    if event == "tallies_recounted":
        say(
            f"the counts of {count_of(fields['prompts'], 'prompt')} were wrong, and were made anew:"
            " rows were changed by hand, or this is a copy that is torn: crawler check,"
            " docs/backup.md"
        )


def _final_status(conn: sqlite3.Connection, guard_ms: int) -> Status:
    return status_of(conn, guard_ms, file_ms(conn))


def freeze_imports() -> None:
    """Take what has been imported by now out of the garbage collector's sight; for a run's start.

    A provider's library can be a million objects. To look through them for garbage again and
    again took 40 % of the time of a fast crawl.
    """
    gc.freeze()


def install_signal_handlers(
    run: Loop,
    say: Callable[[str], None] | None,
    clean_up: Callable[[], None] | None = None,
    again: str = "crawler run",
) -> None:
    """Stop a run politely at the first signal, and at once at the second; obey Ctrl-Z.

    Args:
        run: the run.
        say: tells a person what happens; None: nobody is told.
        clean_up: called before the process ends at once.
        again: the command that goes on.

    """
    first_at_s: float | None = None
    tell_user = say or (lambda _: None)

    def on_signal() -> None:
        nonlocal first_at_s
        if first_at_s is not None:
            if time.monotonic() - first_at_s < SAME_SIGNAL_S:
                return
            with suppress(OSError):  # the terminal may be gone
                if clean_up is not None:
                    clean_up()
                tell_user(f"stopped; go on with: {again}")
            # The next run closes the open attempts as `abandoned`: see run/recovery.py.
            os._exit(EXIT_CODES[Reason.STOPPED])
        first_at_s = time.monotonic()
        run.stop(Reason.STOPPED)
        with suppress(OSError):
            tell_user("stopping: waits for what is in flight (Ctrl-C: at once)")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has its way
            loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        _handle_ctrl_z(loop, run)


def _handle_ctrl_z(loop: asyncio.AbstractEventLoop, run: Loop) -> None:
    """Stop at Ctrl-Z, and obey it again after going on."""

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGTSTP)
        # By the system's own rules: it does not stop whom no shell could let go on.
        os.kill(os.getpid(), signal.SIGTSTP)
        _handle_ctrl_z(loop, run)

    loop.add_signal_handler(signal.SIGTSTP, run.suspend, stop)


def _reporter(log: Log) -> Callable[[Status], None]:
    """Return a function that logs a status now and then."""
    next_at = time.monotonic() + REPORT_EVERY_S

    def report(status: Status) -> None:
        nonlocal next_at
        if time.monotonic() < next_at:
            return
        next_at = time.monotonic() + REPORT_EVERY_S
        log.info(
            "progress_reported",
            succeeded=status.succeeded,
            failed=status.failed,
            unfinished=status.unfinished,
            in_flight=sum(limit.in_flight for limit in status.limits),
            succeeded_per_minute=round(status.succeeded_per_minute, 1),
            eta_ms=status.eta_ms,
            held_by={limit.limit: limit.held_by for limit in status.limits if limit.held_by},
        )

    return report


def _tell_ending(ending: Ending, status: Status, error: CrawlerError | None) -> None:
    """Tell how it ended; where an error follows, that says how to go on."""
    succeeded = status.succeeded
    failed = status.failed
    tell(f"{succeeded} succeeded, {failed} failed, {ending.unfinished} left ({ending.reason})")
    if failed:
        tell('why: crawler sql "select word, outcome, reason from failures"')
    if ending.unfinished and error is None:
        tell("go on with: crawler run")
    if succeeded:
        # A list that a model has written is an answer, too, and the first one.
        listed = any(row.prompt == WORD_LIST and row.succeeded for row in status.progress)
        words = f" where prompt <> '{WORD_LIST}'" if listed else ""
        tell(f'read: crawler sql "select word, text from results{words} limit 5"')
