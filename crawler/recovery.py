"""What dead runs have left open is taken over by those that live.

Rule: a run is dead when its process is, which its lock tells at once, whatever a clock says. Its
heartbeat decides only where the lock can't say.
"""

from crawler.failpoints import failpoint
from crawler.ledger.record import Scope, end_run
from crawler.ledger.turn import live_runs
from crawler.locks import forget_run, run_is_alive
from crawler.logs import Log
from crawler.states import Outcome
from crawler.store import Store


async def bury_the_dead(store: Store, scope: Scope, log: Log) -> None:
    """End the runs that are dead, and make what they had in flight due again."""
    for run_id, heartbeat_at_ms in await store.run(live_runs):
        if run_id == scope.run_id:
            continue
        alive = run_is_alive(store.path, run_id)
        silent = scope.clock() - heartbeat_at_ms > scope.policy.lost_after_ms
        if alive is False or (alive is None and silent):
            why = "died" if alive is False else "silent"
            attempts = await store.run(end_run, scope, run_id, Outcome.ABANDONED, why)
            failpoint("dead_run_ended")
            forget_run(store.path, run_id)
            log.warning("attempts_abandoned", of_run_id=run_id, attempts=attempts, reason=why)
