"""Recovery: what dead runs have left open is taken over by those that live.

A kill leaves an open attempt for each call in flight. `recover` closes them as `abandoned`, at the
start of each run and once a second; then `policy.verdict` makes their requests due again.

Rule: a run is dead when its process is, which its lock tells at once, whatever a clock says. One
that lives and does nothing (stopped for good, or hanging) is given up when its heartbeat has not
moved for `lost_after_ms` of our own waking time, counted in looks: whoever slept or was stopped has
not looked. Should it go on later, the fence keeps what it brings from counting. Where there is no
lock to ask, another start of the machine proves a death; else the age of the heartbeat decides.
"""

from crawler.clock import boot_id
from crawler.failpoints import failpoint
from crawler.ledger.finish import end_run
from crawler.ledger.runs import HEARTBEAT_MS, LiveRun, Scope, live_runs
from crawler.logs import Log
from crawler.run.ending import Reason
from crawler.states import Outcome
from crawler.storage.locks import run_is_alive
from crawler.storage.store import Store

TICK_MS = 1_000
"""How often a run looks after the others, at the most."""


class Heartbeats:
    """The heartbeats that a run has seen of the others, and in how many looks they stood still."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def still_ms(self, run_id: int, heartbeat_at_ms: int) -> int:
        """Look at a heartbeat; return for how long, at the least, it has been seen to stand still.

        To be called a tick after the last time, or later.
        """
        before_ms, looks = self._seen.get(run_id, (None, 0))
        looks = looks + 1 if before_ms == heartbeat_at_ms else 0
        self._seen[run_id] = heartbeat_at_ms, looks
        return looks * TICK_MS


async def recover(store: Store, scope: Scope, log: Log, heartbeats: Heartbeats) -> None:
    """End the runs whose process is gone, and make their open attempts due again."""
    for run in await store.run(live_runs):
        if run.id == scope.run_id:
            continue
        why = _death(store, scope, run, heartbeats)
        if why is not None:
            attempts = await store.run(
                end_run, scope, run.id, Outcome.ABANDONED, Reason.KILLED, detail=why
            )
            failpoint("dead_run_ended")
            log.warning("attempts_abandoned", of_run_id=run.id, attempts=attempts, reason=why)


def _death(store: Store, scope: Scope, run: LiveRun, heartbeats: Heartbeats) -> str | None:
    """Tell why a run is dead; None where it is not known to be."""
    alive = run_is_alive(store.path, run.id)
    rebooted = alive is None and run.boot_id not in ("", boot_id())
    if alive is False or rebooted:
        return "died"
    still_ms = heartbeats.still_ms(run.id, run.heartbeat_at_ms)
    if alive is None:
        still_ms = scope.clock() - run.heartbeat_at_ms
    # Another program may have set its own run less time than the heart takes to beat.
    return "silent" if still_ms > max(scope.policy.lost_after_ms, 3 * HEARTBEAT_MS) else None
