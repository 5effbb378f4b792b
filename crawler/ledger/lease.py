"""What a turn hands out, and how much of it a run may have.

Rule: plain values, so that they can be handed on to anybody who makes calls.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Lease(NamedTuple):
    """A request handed out: its open attempt is (request_id, number)."""

    request_id: int
    number: int
    prompt_id: int
    word: str
    fields: str | None
    tokens: int | None = None
    """What it was taken to use, where its limit counts tokens."""
    cost: float = 0.0
    """What it may cost at the most, where the run's funds are bounded."""
    refusal: str | None = None
    """Why it can't be sent; None if it can."""


class Allowance(NamedTuple):
    """What a run may still start. Funds are tokens, or money with the prices of a token."""

    calls: int
    funds: float | None = None
    """None: any."""
    price_in: float = 1.0
    price_out: float = 1.0

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost."""
        return tokens_in * self.price_in + tokens_out * self.price_out

    def after(self, leases: Sequence[Lease]) -> "Allowance":
        """Return what is left when these have been started."""
        funds = self.funds
        if funds is not None:
            funds -= sum(lease.cost for lease in leases)
        return self._replace(calls=self.calls - len(leases), funds=funds)


NOTHING = Allowance(0)
ANYTHING = Allowance(2**31)
