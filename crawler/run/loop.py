"""One life of a run: turn, hand out, wait, turn again.

Rule: all scheduling is in the ledger's `turn`. What is kept here ends with the process: what the
run may still start and spend, and why it ends. `Loop._ending` decides that a run ends; the exit
code of each reason is in `run.ending`.
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
from crawler.ledger.budget import ANYTHING, NOTHING, Allowance
from crawler.ledger.clocks import agree_offset_ms
from crawler.ledger.control import end_outage
from crawler.ledger.doubt import vain_prompts
from crawler.ledger.finish import end_run, released, shows_server, tokens_used
from crawler.ledger.repair import recount_in_passing
from crawler.ledger.runs import Scope, start_run
from crawler.ledger.status import Status, status
from crawler.ledger.turn import Turn, turn
from crawler.ledger.work import failed_requests, is_stuck
from crawler.logs import Log
from crawler.policy import Policy
from crawler.protocol import Finish, Lease
from crawler.run.ending import (
    Ending,
    Reason,
    RunOptions,
    finished_ending,
    first_to_mend,
    held_ending,
    stopped_ending,
)
from crawler.run.executor import Executor
from crawler.run.recovery import TICK_MS, Heartbeats, recover
from crawler.states import Outcome
from crawler.storage.cancellation import to_its_end
from crawler.storage.locks import LockTimeout, RunLock
from crawler.storage.store import Store

POLL_MS = 250
"""The longest that the loop sleeps: how late it may see what other processes have changed."""
TURN_GAP_MS = 10
"""Turns begin this far apart while calls are in flight, so that ends share a commit."""
MOST_RELEASES = 5
"""After so many turns in a row whose commits were too slow for any call to leave, a run ends."""
BATCH = 256
"""Ends that are worth a turn at once."""


class Loop:
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
        self._store, self._executor, self._wake = store, executor, wake
        self._own_clock, self._clock = clock is None, clock or wall_ms
        self._policy, self._options, self._log, self._on_status = policy, options, log, on_status
        self._scope: Scope
        self._lock: RunLock | None = None
        self._heartbeats = Heartbeats()
        self._started_at_ms = self._turned_at_ms = self._ticked_at_ms = 0
        self._stopping: tuple[Reason, str | None] | None = None
        self._drain_until_ms = self._gate_strikes = 0
        self._suspended: asyncio.Future[None]
        self._reached = False  # some server has answered, whatever it said
        self._calls = 0  # started by this run
        self._spent = 0.0  # in the unit of the budget: what calls have cost, or can cost
        self._costs: dict[int, float] = {}  # of that, what those in flight can cost, by request
        self._released: list[Finish] = []  # ends of leases that were not handed out
        self._releases = 0  # turns in a row whose commits came too late

    def now_ms(self) -> int:
        """Return the time, as the run has it."""
        return self._clock()

    def stop(self, reason: Reason, detail: str | None = None) -> None:
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
        as which SQLITE_NOMEM comes). Then nothing more is written, cancelled or not, and the next
        run recovers what was open.
        """
        try:
            await self._store.run(self._begin)
            await recover(self._store, self._scope, self._log, self._heartbeats)
            # From now on a copy of the file alone knows of a run that has not ended.
            await self._store.checkpoint()
            ending = await self._turns()
            await self._end(ending.reason)
        except (sqlite3.Error, LockTimeout, MemoryError):
            raise
        except BaseException as error:
            if self._lock is not None and not self._store.has_failed:
                cancelled = isinstance(error, asyncio.CancelledError)
                await to_its_end(self._end(Reason.STOPPED if cancelled else Reason.KILLED))
            raise
        finally:
            if self._lock is not None:
                # Also after an error of the database: the next run takes over what is open.
                self._lock.close()
        self._log.info("run_ended", run_id=self._scope.run_id, **ending._asdict())
        return ending

    async def _turns(self) -> Ending:
        while True:
            self._wake.clear()
            finished = [*self._executor.outcomes(), *self._released]
            self._released = []
            if finished:
                failpoint("outcomes_taken")
            self._turned_at_ms = self._clock()
            self._count_costs(finished)
            self._reached = self._reached or any(map(shows_server, finished))
            done = await self._store.run(turn, self._scope, finished, self._allowance())
            self._report(finished, done)
            if done.leases:
                self._hand_out(done)
            ending = await self._ending(done)
            if ending is not None:
                return ending
            if self._stopping and self._clock() > self._drain_until_ms:
                await self._executor.interrupt()
            if self._clock() - self._ticked_at_ms >= TICK_MS:
                await self._tick()
            await self._pause(done.wake_at_ms)

    # What the run may still start

    def _allowance(self) -> Allowance:
        deadline_ms = self._options.deadline_ms
        if deadline_ms is not None and self._clock() - self._started_at_ms >= deadline_ms:
            self.stop(Reason.DEADLINE)
        most, given = self._options.max_calls, self._options.budget
        calls = ANYTHING.calls if most is None else most - self._calls
        left = None if given.budget is None else given.budget - self._spent
        return given._replace(calls=NOTHING.calls if self._stopping else calls, budget=left)

    def _count_costs(self, finished: Sequence[Finish]) -> None:
        """Count what ended calls have cost; where they don't say, it is the most they could."""
        for finish in finished if self._options.budget.budget is not None else ():
            most = self._costs.pop(finish.request_id, 0.0)
            tokens_in, tokens_out = tokens_used(finish)
            if tokens_in is not None and tokens_out is not None:
                self._spent += self._options.budget.cost(tokens_in, tokens_out) - most

    # From leases to calls

    def _hand_out(self, done: Turn) -> None:
        """Give what a turn has leased to the executor, unless its commit came too late.

        Then the leases are released: the next turn records it, and leases anew.
        """
        failpoint("leased")
        if self._is_late(done):
            self._release(done.leases)
            return
        self._releases = 0
        self._calls += len(done.leases)
        if self._options.budget.budget is not None:
            self._costs |= {lease.request_id: lease.cost for lease in done.leases}
            self._spent += sum(lease.cost for lease in done.leases)
        self._executor.submit([lease.call for lease in done.leases])
        failpoint("submitted")

    def _is_late(self, done: Turn) -> bool:
        """Tell whether calls may not leave any more that have started on record with a turn.

        The window trusts that a call arrives within the guard. Half of the guard is the commit's.
        Where there is no window, others may have given this run up: then the calls are not its own.
        """
        allowed_ms = self._policy.guard_ms // 2 if done.windowed else self._policy.lost_after_ms
        return self._clock() - done.now_ms > allowed_ms

    def _release(self, leases: Sequence[Lease]) -> None:
        self._releases += 1
        self._log.warning("leases_released", calls=len(leases))
        self._released = [released(lease, self._clock()) for lease in leases]
        self._wake.set()

    # Why the run ends

    def _report(self, finished: Sequence[Finish], done: Turn) -> None:
        """Log what the turn has recorded, and stop where nobody has ever been at the address."""
        for finish in finished:
            if finish.outcome is Outcome.SUCCEEDED:
                continue
            about = {"request_id": finish.request_id, "number": finish.number}
            self._log.warning(
                "attempt_failed", **about, outcome=finish.outcome, reason=finish.reason
            )
            # A server that has answered this run before is only away; it is waited for.
            patient = self._reached or self._options.watch
            vain = done.gate.strikes >= self._policy.unreachable_strikes
            if finish.outcome is Outcome.UNAVAILABLE and vain and not patient:
                self.stop(Reason.UNREACHABLE, finish.reason)
        gate = done.gate
        if gate.strikes > self._gate_strikes and gate.opens_at_ms > done.now_ms:
            self._log.warning("gate_closed", cause=gate.cause, opens_at_ms=gate.opens_at_ms)
        self._gate_strikes = gate.strikes
        if done.late:
            self._log.warning("late_answers_refused", answers=done.late)

    async def _ending(self, done: Turn) -> Ending | None:
        """Return the reason to end, if there is one and nothing is in flight any more."""
        left, most, watch = done.unfinished, self._options.max_calls, self._options.watch
        if done.lost:
            return Ending(Reason.KILLED, "another process has taken its calls over", left)
        if self._executor.in_flight() or self._executor.waiting():
            return None
        if not left and not watch:
            return await self._store.run(self._finished)
        if self._releases >= MOST_RELEASES:
            return Ending(Reason.DISK, None, left)
        if self._stopping:
            ending = Ending(*self._stopping, left)
            vain = ending.reason is Reason.UNREACHABLE and done.stops
            return first_to_mend([ending, stopped_ending(done.stops, left)]) if vain else ending
        if most is not None and self._calls >= most:
            return Ending(Reason.MAX_CALLS, None, left)
        if done.stops and done.stopped == left:
            return stopped_ending(done.stops, left)
        if done.over_budget and not done.leases:
            return Ending(self._options.over_budget, None, left)
        return None if watch else await self._idle_ending(done)

    async def _idle_ending(self, done: Turn) -> Ending | None:
        """Return the reason to end where nothing has started, if to wait would be in vain."""
        left = done.unfinished
        due = self._options.selection, done.wake_at_ms, self._clock()
        if not done.leases and await self._store.run(is_stuck, *due):
            return Ending(Reason.STUCK, None, left)
        return held_ending(done.stops, done.gates, left, self._policy.patience_ms, self._clock())

    def _finished(self, conn: sqlite3.Connection) -> Ending:
        selection = self._scope.selection
        return finished_ending(failed_requests(conn, selection), vain_prompts(conn, selection))

    # The edges of a life

    def _begin(self, conn: sqlite3.Connection) -> None:
        """Put the run on record, with its sign of life before anybody can see it."""
        if self._own_clock:
            # In the transaction that shows the run: from then on the file is not idle.
            self._clock = steady_clock(agree_offset_ms(conn, boot_id(), since_boot_ms(), wall_ms()))
        if self._options.selection.request_ids is None and (wrong := recount_in_passing(conn)):
            self._log.warning("tallies_recounted", prompts=wrong)
        now_ms = self._started_at_ms = self._ticked_at_ms = self._clock()
        whose = (os.getpid(), socket.gethostname(), version("quotacrawl"))
        run_id = start_run(conn, *whose, now_ms, boot_id(), self._options.on_record(now_ms))
        failpoint("run_recorded")
        self._scope = Scope(
            run_id=run_id,
            policy=self._policy,
            clock=self._clock,
            draw=random.randint,
            selection=self._options.selection,
        )
        self._lock = RunLock(self._store.path, run_id)
        failpoint("run_locked")
        self._log.info("run_started", run_id=run_id, version=version("quotacrawl"))

    async def _pause(self, wake_at_ms: int | None) -> None:
        """Sleep until a call ends, somebody wakes us, or it is time to look again."""
        due_ms = POLL_MS if wake_at_ms is None else wake_at_ms - self._clock()
        pause_ms = min(POLL_MS, max(0, due_ms))
        timer = asyncio.get_running_loop().call_later(pause_ms / 1000, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        gap_ms = self._turned_at_ms + TURN_GAP_MS - self._clock()
        if gap_ms > 0 and self._executor.in_flight() and self._executor.waiting() < BATCH:
            await asyncio.sleep(gap_ms / 1000)

    async def _tick(self) -> None:
        self._ticked_at_ms = self._clock()
        await self._store.tend()
        await recover(self._store, self._scope, self._log, self._heartbeats)
        if self._on_status is not None:
            when = self._clock(), self._scope.selection
            self._on_status(await self._store.run(status, self._policy.guard_ms, *when))

    async def _end(self, reason: Reason) -> None:
        """Record what came in at the last moment, and close what did not."""
        await self._executor.interrupt()
        ends = [*self._executor.outcomes(), *self._released]
        last = await self._store.run(turn, self._scope, ends, NOTHING)
        self._report((), last)
        failpoint("run_ending")
        await self._store.run(end_run, self._scope, self._scope.run_id, Outcome.INTERRUPTED, reason)
        if reason is Reason.UNREACHABLE:
            # Whoever runs again has mended something: find out at once, by whichever request.
            await self._store.run(end_outage, self._clock())
        failpoint("run_ended")
