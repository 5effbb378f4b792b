"""What a run may still start: calls, and what they cost.

Rule: pure. A call is paid for at the most that it can cost when it begins, and at what it did cost
when it ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

from crawler.protocol import Lease


class Allowance(NamedTuple):
    """What a run may still start. A budget is tokens, or money with the prices of a token."""

    calls: int
    budget: float | None = None
    """None: any."""
    price_in: float = 1.0
    price_out: float = 1.0

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost."""
        return tokens_in * self.price_in + tokens_out * self.price_out

    def after(self, leases: Sequence[Lease]) -> "Allowance":
        """Return what is left when these have been started."""
        budget = self.budget
        if budget is not None:
            budget -= sum(lease.cost for lease in leases)
        return self._replace(calls=self.calls - len(leases), budget=budget)


NOTHING = Allowance(0)
ANYTHING = Allowance(2**31)
