"""The asyncio shell around the turn: turn, hand out, wait, turn again.

Rule: nothing is decided here that could be decided in the ledger. The loop holds no queue, no timer
for a request and no count of a quota; what must outlive a crash is in the rows.
"""

import asyncio
import os
import random
import socket
import sqlite3
from collections.abc import Callable, Sequence
from importlib.metadata import version

from crawler.clock import boot_id, since_boot_ms, steady_clock, wall_ms
from crawler.failpoints import failpoint
from crawler.ledger.clocks import agree_offset_ms
from crawler.ledger.control import end_outage
from crawler.ledger.lease import ANYTHING, NOTHING, Allowance
from crawler.ledger.record import Finish, Scope, end_run
from crawler.ledger.report import Status, status
from crawler.ledger.turn import Turn, live_runs, start_run, turn
from crawler.logs import Log
from crawler.policy import Policy
from crawler.run.brake import Brake
from crawler.run.dispatch import Dispatch
from crawler.run.ending import Ending, RunOptions, gate_ending
from crawler.run.executor import Executor
from crawler.run.funds import Funds
from crawler.run.recovery import TICK_MS, Watch, bury_the_dead
from crawler.states import Outcome
from crawler.storage.cancellation import to_its_end
from crawler.storage.locks import LockTimeout, RunLock, forget_all_but
from crawler.storage.store import Store

POLL_MS = 250
"""The longest that the loop sleeps: how late it may see what other processes have changed."""
TURN_GAP_MS = 10
"""Turns begin this far apart while calls are in flight, so that ends share a commit."""
MOST_HELD_UP = 5
"""After so many turns in a row whose commits were too slow for any call to leave, a run ends."""
BATCH = 256
"""Ends that are worth a turn at once."""


class Scheduler:
    """One run.

    Args:
        store: the open database.
        executor: where calls are made.
        wake: set by the executor whenever it has an outcome; the loop sleeps on it.
        clock: the time in ms; None for the file's own (see `ledger.clocks`).
        policy: the settings.
        options: how far to go.
        log: where events go.
        on_status: told the state of the crawl once a second.

    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        wake: asyncio.Event,
        *,
        clock: Callable[[], int] | None,
        policy: Policy,
        options: RunOptions,
        log: Log,
        on_status: Callable[[Status], None] | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._wake = wake
        self._own_clock = clock is None
        self._clock = clock or wall_ms
        self._policy = policy
        self._options = options
        self._log = log
        self._on_status = on_status
        self._scope: Scope
        self._lock: RunLock | None = None
        self._started_at_ms = self._turned_at_ms = self._ticked_at_ms = 0
        self._stopping: tuple[str, str | None] | None = None
        self._drain_until_ms = 0
        self._gate_strikes = 0
        self._watch = Watch()
        self._suspended: asyncio.Future[None]
        self._brake = Brake(policy.vain_rejections)
        self._funds = Funds(options.funds)
        self._dispatch = Dispatch(store, executor, log, self._brake, self._funds)

    def now_ms(self) -> int:
        """Return the time, as the run has it."""
        return self._clock()

    def stop(self, reason: str, detail: str | None = None) -> None:
        """Start nothing more, let what is in flight end for `drain_ms`, and end the run."""
        if self._stopping is None:
            self._stopping = (reason, detail)
            self._drain_until_ms = self._clock() + self._policy.drain_ms
            self._log.info("stop_requested", reason=reason, in_flight=self._executor.in_flight())
            self._wake.set()

    def suspend(self, stop: Callable[[], None]) -> None:
        """Have the process stopped, as Ctrl-Z is to do, where nobody else has to stop for it.

        Who is stopped inside of a transaction keeps everybody else from writing.
        """
        self._suspended = asyncio.ensure_future(self._store.between_transactions(stop))

    async def run(self) -> Ending:
        """Crawl until there is a reason to end.

        What goes wrong with the database is raised (sqlite3.Error, LockTimeout, and MemoryError,
        as which SQLITE_NOMEM comes); then nothing more is written, and the next run picks up what
        was open.
        """
        try:
            await self._store.run(self._begin)
            await bury_the_dead(self._store, self._scope, self._log, self._watch)
            ending = await self._loop()
            await self._end(ending.reason)
        except (sqlite3.Error, LockTimeout, MemoryError):
            raise
        except BaseException as error:
            if self._lock is not None:
                cancelled = isinstance(error, asyncio.CancelledError)
                await to_its_end(self._end("cancelled" if cancelled else "error"))
            raise
        finally:
            if self._lock is not None:
                # Also after an error of the database: the next run takes over what is open.
                self._lock.close()
        self._log.info("run_ended", run_id=self._scope.run_id, **ending._asdict())
        return ending

    def _begin(self, conn: sqlite3.Connection) -> None:
        """Put the run on record, with its sign of life before anybody can see it."""
        if self._own_clock:
            # In the transaction that shows the run: from then on the file is not idle.
            offset_ms = agree_offset_ms(conn, boot_id(), since_boot_ms(), wall_ms())
            self._clock = steady_clock(offset_ms)
        self._started_at_ms = self._ticked_at_ms = self._clock()
        program = version("quotacrawl")
        machine = socket.gethostname()
        run_id = start_run(conn, os.getpid(), machine, program, self._clock(), boot_id())
        failpoint("run_recorded")
        self._scope = Scope(
            run_id=run_id,
            policy=self._policy,
            clock=self._clock,
            draw=random.randint,
            prompt_ids=self._options.prompt_ids,
            request_id=self._options.request_id,
        )
        self._lock = RunLock(self._store.path, run_id)
        forget_all_but(self._store.path, {run.id for run in live_runs(conn)})
        failpoint("run_locked")
        self._log.info("run_started", run_id=run_id, version=program)

    async def _loop(self) -> Ending:
        while True:
            self._wake.clear()
            finished = self._executor.outcomes()
            if finished:
                failpoint("outcomes_taken")
            self._turned_at_ms = self._clock()
            self._stop_if_refused(finished)
            done = await self._store.run(turn, self._scope, finished, self._allowance())
            self._notice(finished, done)
            if done.leases and await self._dispatch.hand_out(done, self._scope):
                self._wake.set()
            ending = self._ending(done)
            if ending is not None:
                return ending
            if self._stopping and self._clock() > self._drain_until_ms:
                await self._executor.interrupt()
            if self._clock() - self._ticked_at_ms >= TICK_MS:
                await self._tick()
            await self._pause(done.wake_at_ms)

    def _allowance(self) -> Allowance:
        """Return what may still be started."""
        deadline_ms = self._options.deadline_ms
        if deadline_ms is not None and self._clock() - self._started_at_ms >= deadline_ms:
            self.stop("deadline")
        if self._stopping or self._brake.in_doubt():
            return NOTHING
        most = self._options.max_calls
        started = self._dispatch.calls_started
        return self._funds.left(ANYTHING.calls if most is None else most - started)

    def _notice(self, finished: Sequence[Finish], done: Turn) -> None:
        """Draw from the outcomes what concerns the run as a whole."""
        for finish in finished:
            if finish.outcome is Outcome.SUCCEEDED:
                continue
            self._log.warning(
                "attempt_failed",
                request_id=finish.request_id,
                number=finish.number,
                outcome=finish.outcome,
                reason=finish.reason,
            )
            self._stop_if_vain(finish, done.gate.strikes)
        if done.gate.strikes > self._gate_strikes and done.gate.opens_at_ms > done.now_ms:
            gate = done.gate
            self._log.warning("gate_closed", cause=gate.cause, opens_at_ms=gate.opens_at_ms)
        self._gate_strikes = done.gate.strikes
        if done.late:
            self._log.warning("late_answers_refused", answers=done.late)

    def _stop_if_refused(self, finished: Sequence[Finish]) -> None:
        """Stop, before the next turn leases more, where every call would be refused alike."""
        for finish in finished:
            self._brake.ended(finish)
            self._funds.ended(finish)
            if finish.outcome is Outcome.DENIED:
                self.stop("denied", finish.reason)
        refusal = self._brake.refusal()
        if refusal is not None:
            self.stop("rejected", refusal)

    def _stop_if_vain(self, finish: Finish, strikes: int) -> None:
        """Stop where nobody has ever been there."""
        if finish.outcome is Outcome.UNAVAILABLE:
            # A server that has answered this run before is only away; it is waited for.
            patient = self._brake.reached or self._options.watch
            if not patient and strikes >= self._policy.unreachable_strikes:
                self.stop("unreachable", finish.reason)

    def _ending(self, done: Turn) -> Ending | None:
        """Return the reason to end, if there is one and nothing is in flight any more."""
        if done.lost:
            return Ending("lost", "another process has taken its calls over", done.unfinished)
        if self._executor.in_flight() or self._executor.waiting():
            return None
        if not done.unfinished and not self._options.watch:
            return Ending("done", None, 0)
        if self._dispatch.held_up >= MOST_HELD_UP:
            return Ending("slow_disk", None, done.unfinished)
        if self._stopping:
            return Ending(*self._stopping, done.unfinished)
        most = self._options.max_calls
        if most is not None and self._dispatch.calls_started >= most:
            return Ending("calls_used", None, done.unfinished)
        if done.out_of_funds and not done.leases:
            return Ending("funds_used", None, done.unfinished)
        if self._options.watch:
            return None
        return gate_ending(done.gate, done.unfinished, self._policy.patience_ms, self._clock())

    async def _pause(self, wake_at_ms: int | None) -> None:
        """Sleep until a call ends, somebody wakes us, or it is time to look again."""
        pause_ms = POLL_MS
        if wake_at_ms is not None:
            pause_ms = min(pause_ms, max(0, wake_at_ms - self._clock()))
        timer = asyncio.get_running_loop().call_later(pause_ms / 1000, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        gap_ms = self._turned_at_ms + TURN_GAP_MS - self._clock()
        if gap_ms > 0 and self._executor.in_flight() and self._executor.waiting() < BATCH:
            await asyncio.sleep(gap_ms / 1000)

    async def _tick(self) -> None:
        self._ticked_at_ms = self._clock()
        self._store.require_file()
        await bury_the_dead(self._store, self._scope, self._log, self._watch)
        if self._on_status is not None:
            self._on_status(await self._store.run(status, self._policy.guard_ms, self._clock()))

    async def _end(self, reason: str) -> None:
        """Record what came in at the last moment, and close what did not."""
        await self._executor.interrupt()
        last = await self._store.run(turn, self._scope, self._executor.outcomes(), NOTHING)
        self._notice((), last)
        failpoint("run_ending")
        await self._store.run(end_run, self._scope, self._scope.run_id, Outcome.INTERRUPTED, reason)
        if reason in ("outage", "unreachable"):
            # Whoever runs again has mended something: find out at once, by whichever request.
            await self._store.run(end_outage, self._clock())
        failpoint("run_ended")
        assert self._lock is not None
        self._lock.forget()
