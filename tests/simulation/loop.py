"""An event loop in virtual time, in which processes live, are frozen, and die.

Rule: nothing waits and nothing is left to chance but what the seed draws, so one seed is one
history. A process is a name in a context variable, which each task, timer and database job of it
inherits. aiosqlite runs unchanged, but for its thread: each job is run whole, in the loop, after a
virtual delay.
"""

import asyncio
import contextvars
import heapq
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import aiosqlite.core

PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="world")
BEGIN_S = 1_000.0
MAX_STEPS = 3_000_000
HOP_S = (0.0002, 0.003)
SLOW_HOP_S = (0.1, 2.0)
SLOW_HOPS = 0.002
"""How many of the hops to the database meet a slow disk."""

_IMMORTAL: list[Any] = []
"""What a killed process leaves. Were it collected, its `finally` blocks would run."""


class StuckError(RuntimeError):
    """Everybody waits, and nothing will happen; or it goes on and on."""


class Loop(asyncio.SelectorEventLoop):
    """Runs one callback at a time, drawn from those that are ready; without a seed in their order.

    Args:
        seed: what chance begins with; None for a loop without any.

    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.now_s = BEGIN_S
        self.steps = 0
        self.chance = None if seed is None else random.Random(f"loop {seed}")
        self.at_step: dict[int, Any] = {}
        self.on_kill: list[Any] = []
        self.dead: set[str] = set()
        self.thawed_at_s: dict[str, float] = {}
        self.jobs_to_live: dict[str, int] = {}
        """Of a process: it dies when this many more of its transactions are on the disk."""
        self.frost_s: dict[str, float] = {}
        """Of a process: how long it is to be frozen when it has its next leases."""
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self.events: list[tuple[object, ...]] = []
        """The history: what has been noted, and when."""
        _IMMORTAL.append(self)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now_s

    def note(self, *event: object) -> None:
        """Make an event part of the history."""
        self.events.append((round(self.now_s - BEGIN_S, 6), *event))

    def start(self, process: str, program: Any) -> asyncio.Task[Any]:
        """Start a process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(program, context=context)

    def freeze(self, process: str) -> None:
        """Stop a process where it is, as SIGSTOP does."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: str) -> None:
        """Let a process go on, as SIGCONT does."""
        if process in self._frozen:
            self.thawed_at_s[process] = self.now_s
            self._ready.extend(self._frozen.pop(process))

    def was_frozen(self, process: str) -> bool:
        """Tell whether a process is frozen, or has been."""
        return process in self._frozen or process in self.thawed_at_s

    def kill(self, process: str) -> None:
        """End a process as SIGKILL does: nothing of it is ever run again."""
        if process in self.dead:
            return
        self.dead.add(process)
        _IMMORTAL.append((self._frozen.pop(process, None), asyncio.all_tasks(self)))
        for tell in self.on_kill:
            tell(process)

    def leave(self) -> None:
        """Give the loop's files back, and let what is left in it rest."""
        self._close_self_pipe()
        self._selector.close()
        self._closed = True

    def _run_once(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise StuckError("it goes on and on")
        self._wake_timers()
        if not self._ready:
            return
        if self.steps in self.at_step:
            self.at_step.pop(self.steps)()
        nth = 0 if self.chance is None else self.chance.randrange(len(self._ready))
        handle = self._ready[nth]
        del self._ready[nth]
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS, "world")
        if process in self.dead:
            _IMMORTAL.append(handle)
        elif process in self._frozen:
            self._frozen[process].append(handle)
        else:
            handle._run()

    def _wake_timers(self) -> None:
        """Make ready what is due; where nothing else is, move on to the next timer."""
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not self._ready and not self._stopping:
            if not timers:
                raise StuckError("everybody waits, and nothing will happen")
            self.now_s = max(self.now_s, timers[0]._when)
        while timers and timers[0]._when <= self.now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)


class _InlineQueue:
    """Stands for the queue of aiosqlite and for the thread that empties it."""

    loop: Loop

    def __init__(self) -> None:
        self._jobs: list[Any] = []
        self._busy = False

    def put_nowait(self, job: Any) -> None:
        self._jobs.append(job)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._jobs)
        if self._busy:
            self.loop.call_later(_hop_s(self.loop.chance), self._run)

    def _run(self) -> None:
        future, job = self._jobs.pop(0)
        result, error = None, None
        try:
            result = job()
        except BaseException as raised:  # noqa: BLE001 - as the thread of aiosqlite does
            error = raised
        if self._dies():
            return
        if future is not None and not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._next()
        if getattr(result, "leases", None):
            self._freeze()

    def _freeze(self) -> None:
        """Freeze the process if it is to be: it hears of its leases when it thaws."""
        process = PROCESS.get()
        if process in self.loop.frost_s:
            self.loop.freeze(process)
            thaw_s, world = self.loop.frost_s.pop(process), contextvars.Context()
            self.loop.call_later(thaw_s, self.loop.thaw, process, context=world)

    def _dies(self) -> bool:
        """Kill the process where its time has come: on the disk, but nobody has heard of it."""
        process, left = PROCESS.get(), self.loop.jobs_to_live
        if process not in left:
            return False
        left[process] -= 1
        if left[process] > 0:
            return False
        del left[process]
        self.loop.kill(process)
        return True


def _hop_s(chance: random.Random | None) -> float:
    if chance is None:
        return HOP_S[0]
    return chance.uniform(*(SLOW_HOP_S if chance.random() < SLOW_HOPS else HOP_S))


class _NoThread:
    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def start(self) -> None:
        pass


@contextmanager
def _inline_aiosqlite(loop: Loop) -> Iterator[None]:
    queue = type("Queue", (_InlineQueue,), {"loop": loop})
    with (
        patch.object(aiosqlite.core, "Thread", _NoThread),
        patch.object(aiosqlite.core, "SimpleQueue", queue),
    ):
        yield


def run(main: Any, seed: int | None = None) -> Loop:
    """Run ``main(loop)`` to its end in a loop of its own, and return that loop.

    Raises StuckError, and what the function raises.
    """
    loop = Loop(seed)
    asyncio.set_event_loop(loop)
    try:
        with _inline_aiosqlite(loop):
            loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        loop.leave()
    return loop
