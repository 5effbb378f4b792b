"""From leases to calls: prompts are rendered, starts that were held up are moved, calls handed out.

Rule: nothing is handed out before its lease is on the disk, nor later than its start on record
allows.
"""

from collections.abc import Sequence

from crawler.failpoints import failpoint
from crawler.ledger.intake import Prompt, prompt_by_id
from crawler.ledger.lease import NOTHING, Lease
from crawler.ledger.record import Finish, Scope
from crawler.ledger.report import has_answers
from crawler.ledger.restamp import give_back, restamp
from crawler.ledger.turn import Turn, turn
from crawler.logs import Log
from crawler.protocol import Call
from crawler.run.brake import Brake
from crawler.run.calls import to_call, unsent
from crawler.run.executor import Executor
from crawler.run.funds import Funds
from crawler.storage.store import Store
from crawler.template import Template

MOST_RESTAMPS = 3


class Dispatch:
    """Hands out what a run has leased, and tells brake and funds of it."""

    def __init__(
        self, store: Store, executor: Executor, log: Log, brake: Brake, funds: Funds
    ) -> None:
        self.calls_started = 0
        self.held_up = 0
        """How often in a row leases were given back because no commit came in time."""
        self._store = store
        self._executor = executor
        self._log = log
        self._brake = brake
        self._funds = funds
        self._prompts: dict[int, tuple[Prompt, Template]] = {}

    async def hand_out(self, done: Turn, scope: Scope) -> bool:
        """Give what a turn has leased to the executor.

        Returns whether there is something for another turn at once: requests that could not be
        sent, or that have no place in the window any more.
        """
        failpoint("leased")
        calls, unsendable = await self._calls(done.leases, scope)
        if not await self._may_leave(done, scope):
            return True
        for lease, _ in calls:
            self._brake.begun(lease.request_id, lease.prompt_id)
            self._funds.begun(lease)
        self.calls_started += len(calls)
        self._executor.submit([call for _, call in calls])
        failpoint("submitted")
        if unsendable:
            await self._store.run(turn, scope, unsendable, NOTHING)
        return bool(unsendable)

    async def _calls(
        self, leases: Sequence[Lease], scope: Scope
    ) -> tuple[list[tuple[Lease, Call]], list[Finish]]:
        """Return the calls to make, and the ends of those that can't be made."""
        calls: list[tuple[Lease, Call]] = []
        unsendable: list[Finish] = []
        for lease in leases:
            if lease.prompt_id not in self._prompts:
                await self._learn(lease.prompt_id)
            try:
                call = to_call(lease, *self._prompts[lease.prompt_id], scope.policy)
                calls.append((lease, call))
            except ValueError as error:
                unsendable.append(unsent(lease, error, scope.clock()))
        return calls, unsendable

    async def _learn(self, prompt_id: int) -> None:
        """Read a prompt, once, and whether it has been served in the past."""
        prompt = await self._store.run(prompt_by_id, prompt_id)
        self._prompts[prompt_id] = prompt, Template(prompt.template)
        if await self._store.run(has_answers, prompt_id):
            self._brake.served(prompt_id)

    async def _may_leave(self, done: Turn, scope: Scope) -> bool:
        """Tell whether leased requests may be sent; if not, they are not this run's any more."""
        if not done.windowed:
            return True
        # The window trusts that a call arrives within the guard after its start on record. If the
        # commit took longer than that, the start is moved before anything leaves.
        started_at_ms = done.now_ms
        for _ in range(MOST_RESTAMPS):
            if scope.clock() - started_at_ms <= scope.policy.guard_ms // 2:
                self.held_up = 0
                return True
            self._log.info("start_restamped", calls=len(done.leases))
            started_at_ms, kept = await self._store.run(restamp, scope, done.leases)
            if kept < len(done.leases):
                return False
        # Each commit takes that long: the disk, and not a moment, is too slow for the guard.
        self.held_up += 1
        await self._store.run(give_back, scope, done.leases, "no commit came in time")
        return False
