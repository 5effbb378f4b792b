"""Mistakes that others have made, planted on purpose: each is caught by the suite that it is for.

Rule: a bug is a patch from outside; nothing in the product knows of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import aiosqlite

from crawler.ledger import finish as finishes
from crawler.ledger import turn
from crawler.ledger.budget import ANYTHING
from crawler.ledger.draw import Drawn, Room
from crawler.ledger.limits import limits
from crawler.run import loop, recovery
from crawler.run.ending import Reason
from crawler.storage import database
from crawler.storage import store as stores

Patches = Iterator[None]


@contextmanager
def two_transactions() -> Patches:
    """How calls ended is written in one transaction, what becomes of requests in another."""
    run, close = stores.Store.run, finishes._close
    closed: dict[int, Any] = {}

    async def in_two(store: Any, transaction: Any, *args: Any, **more: Any) -> Any:
        if transaction is turn.turn and args[1]:
            scope, finished, _ = args
            closed[scope.run_id] = await run(store, close, scope.run_id, finished)
        return await run(store, transaction, *args, **more)

    def closed_before(conn: Any, run_id: int, finished: Any) -> Any:
        return closed.pop(run_id) if run_id in closed else close(conn, run_id, finished)

    with (
        patch.object(stores.Store, "run", in_two),
        patch.object(finishes, "_close", closed_before),
    ):
        yield


@contextmanager
def no_fence() -> Patches:
    """An end is written to whatever attempt of the request is open, whoever has it."""
    close = finishes._close

    def anybody(conn: Any, run_id: int, finished: Any) -> Any:
        mine = []
        for finish in finished:
            whose = conn.execute(
                "SELECT run_id, number FROM attempts"
                " WHERE request_id = ? AND finished_at_ms IS NULL",
                (finish.request_id,),
            ).fetchone()
            if whose is not None:
                mine += close(conn, whose[0], [finish._replace(number=whose[1])])
        return mine

    with patch.object(finishes, "_close", anybody):
        yield


@contextmanager
def limiter_in_memory() -> Patches:
    """The starts of the last minute are known to the run that made them, and to nobody else."""
    seen = turn.usage

    def forgetful(conn: Any, limit: Any, *args: Any) -> Any:
        used = seen(conn, limit, *args)
        now_ms = args[-1]
        (mine,) = conn.execute(
            "SELECT count(*) FROM attempts WHERE limit_id = ? AND started_at_ms >= ?"
            " AND run_id = (SELECT max(id) FROM runs)",
            (limit.id, now_ms - limit.quota.window_ms),
        ).fetchone()
        return used._replace(occupied=mine)

    with patch.object(turn, "usage", forgetful):
        yield


@contextmanager
def one_too_many() -> Patches:
    """One more call is in flight than there may be."""
    planned = turn.next_step

    def generous(limit: Any, *args: Any) -> Any:
        more = limit.quota._replace(concurrency=limit.quota.concurrency + 1)
        return planned(limit._replace(quota=more), *args)

    with patch.object(turn, "next_step", generous):
        yield


@contextmanager
def racy_claim() -> Patches:
    """What is free is looked up in one transaction, and taken in another."""
    run, draw, leased_by = stores.Store.run, turn.draw, turn.turn
    free: dict[int, Any] = {}

    async def in_two(store: Any, transaction: Any, *args: Any, **more: Any) -> Any:
        if transaction is leased_by and args[2].calls:
            await run(store, look_up, args[0])
        return await run(store, transaction, *args, **more)

    def look_up(conn: Any, scope: Any) -> None:
        prompts = [prompt_id for (prompt_id,) in conn.execute("SELECT id FROM prompts")]
        limit = next(iter(limits(conn, scope.policy.guard_ms).values()))
        free[scope.run_id] = draw(
            conn, scope, limit, prompts, Room(5, None, {}), ANYTHING, scope.clock()
        ).leases

    def stale(_: Any, scope: Any, __: Any, ___: Any, room: Any, *____: Any) -> Any:
        return Drawn(leases=free.pop(scope.run_id, [])[: max(0, room.calls)])

    with patch.object(stores.Store, "run", in_two), patch.object(turn, "draw", stale):
        yield


@contextmanager
def short_lease() -> Patches:
    """A lease ends after three seconds, and calls may take longer."""

    def expired(_: Any, scope: Any, run: Any, __: Any) -> str | None:
        return "silent" if scope.clock() - run.heartbeat_at_ms > 3_000 else None

    with patch.object(recovery, "_death", expired):
        yield


@contextmanager
def lease_kept() -> Patches:
    """Who is cancelled goes, and leaves what he had in flight as it is."""
    end = loop.Loop._end

    async def not_if_cancelled(self: Any, reason: str) -> None:
        if reason is not Reason.STOPPED:
            await end(self, reason)

    with patch.object(loop.Loop, "_end", not_if_cancelled):
        yield


@contextmanager
def no_place() -> Patches:
    """Who was held up on the way sends, whoever has taken the places meanwhile."""
    with patch.object(loop.Loop, "_is_late", lambda *_: False):
        yield


@contextmanager
def synchronous_off() -> Patches:
    """COMMIT returns before the disk has it."""
    settings = [
        "PRAGMA synchronous = OFF" if "synchronous" in setting else setting
        for setting in database.SETTINGS
    ]
    with patch.object(database, "SETTINGS", tuple(settings)):
        yield


@contextmanager
def connection_left_open() -> Patches:
    """The database is not closed at the end."""

    async def leave(*_: Any) -> None:
        await asyncio.sleep(0)

    with (
        patch.object(stores, "_close", leave),
        patch.object(aiosqlite.Connection, "__aexit__", leave),
    ):
        yield


BUGS = {
    bug.__name__: bug
    for bug in (
        two_transactions,
        no_fence,
        limiter_in_memory,
        one_too_many,
        racy_claim,
        short_lease,
        lease_kept,
        no_place,
        synchronous_off,
        connection_left_open,
    )
}
SUITES = {"lease_kept": "cancellation", "synchronous_off": "power_loss"}
"""The simulation that is there to find a bug, where that is not `program`."""
FOUND_AS = {
    "two_transactions": "leased_is_open",
    "no_fence": "is none to call",
    "limiter_in_memory": "calls in a minute",
    "one_too_many": "calls at once",
    "racy_claim": "not a legal transition of a request",
    "short_lease": "calls are abandoned",
    "lease_kept": "open calls are left",
    "no_place": "calls in a minute",
    "synchronous_off": "corrupt: ",
    "connection_left_open": "connections and locks left open",
}
"""What is said of it; anything else is another finding."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Run with a bug; None: without one. Raises KeyError if there is no such bug."""
    if name is None:
        yield
        return
    with BUGS[name]():
        yield
