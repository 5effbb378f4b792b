"""What a run may spend, in tokens or in money: never more than it was given.

Rule: pure. A call is paid for at the most that it can cost when it begins, and at what it did cost
when it ends.
"""

from crawler.ledger.lease import Allowance, Lease
from crawler.ledger.record import Finish, usage


class Funds:
    """The funds of a run.

    Args:
        given: what it may spend, with the prices of a token; its calls say nothing here.

    """

    def __init__(self, given: Allowance) -> None:
        self._given = given
        self._spent = 0.0
        self._reserved: dict[int, float] = {}  # by request in flight

    def left(self, calls: int) -> Allowance:
        """Return what may be spent on so many calls."""
        funds = self._given.funds
        if funds is not None:
            funds -= self._spent + sum(self._reserved.values())
        return self._given._replace(calls=calls, funds=funds)

    def begun(self, lease: Lease) -> None:
        """Take note of a call."""
        if self._given.funds is not None:
            self._reserved[lease.request_id] = lease.cost

    def ended(self, finish: Finish) -> None:
        """Take note of a call's end; where it doesn't say what it used, it has used the most."""
        most = self._reserved.pop(finish.request_id, 0.0)
        tokens_in, tokens_out = usage(finish)
        if tokens_in is None or tokens_out is None:
            self._spent += most
        else:
            self._spent += self._given.cost(tokens_in, tokens_out)
