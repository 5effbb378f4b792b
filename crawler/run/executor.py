"""Makes the calls: a task for each one in flight, on this machine, in this loop.

Rule: the loop knows an executor by the methods of `Executor` alone. What goes in is a plain
`Call`, what comes out a plain `Finish`, so that another executor (a cluster, a provider's batch
job) can take this one's place. Nothing in here knows the ledger, and no call is made twice.
"""

import asyncio
import importlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol

from crawler.errors import CrawlerError, Exit
from crawler.failpoints import failpoint
from crawler.policy import PATIENCE_MS
from crawler.protocol import Answer, Call, Finish, Provider, ProviderError, StreamingProvider, Told
from crawler.providers import kind_of
from crawler.redaction import redacted, secrets_of_environment
from crawler.states import Outcome
from crawler.states.kinds import Kind

REASON_LENGTH = 500
MOST_DETAILS = 2_000
"""Characters of what is kept beside an answer."""
NOTE_LENGTH = 100
MOST_THOUGHTS = 100_000
SQLITE_MAX = 2**63 - 1
LONGEST_PAUSE_MS = 31 * 24 * 3_600_000
"""What a server asks for beyond it is cut: later times would not fit a column, or a calendar."""
GIVE_UP_S = 5
"""How long a call may take to end once it has been given up."""
LAST_WAIT_S = 1
"""The same, when it has ignored that and was told so again."""


OnText = Callable[[Call, str], None]
"""Told a piece of a call's answer as it comes."""


class Executor(Protocol):
    """Where calls are made."""

    def submit(self, calls: Sequence[Call]) -> None:
        """Begin to make calls; returns at once."""

    def outcomes(self) -> list[Finish]:
        """Return what has ended since the last time, each call once; never waits."""

    def waiting(self) -> int:
        """Return how many outcomes there are to fetch."""

    def in_flight(self) -> int:
        """Return how many calls have been submitted and have not ended."""

    async def interrupt(self) -> None:
        """Give up what is in flight; those calls are `interrupted` among the outcomes."""


class LocalExecutor:
    """Makes the calls in this process.

    Args:
        clock: the time, in ms.
        notify: called whenever there is an outcome to fetch.
        given: providers that are there already, by (provider, model).
        on_text: told pieces of the answers as they come; None where nobody reads along.

    """

    def __init__(
        self,
        clock: Callable[[], int],
        notify: Callable[[], None],
        given: Mapping[tuple[str, str], Provider] | None = None,
        on_text: OnText | None = None,
    ) -> None:
        self._clock = clock
        self._notify = notify
        self._providers = dict(given or {})
        self._on_text = on_text
        self._connecting = asyncio.Lock()
        self._connections = AsyncExitStack()
        self._tasks: dict[asyncio.Task[None], tuple[int, Call]] = {}  # and when each is overdue
        self._shortest_ms = SQLITE_MAX  # of the time-outs
        self._cancelled: dict[asyncio.Task[None], ProviderError] = {}  # by us, and why
        self._ended: list[Finish] = []

    def submit(self, calls: Sequence[Call]) -> None:
        """Begin to make calls; returns at once."""
        now_ms = self._clock()
        for call in calls:
            task = asyncio.create_task(self._make(call))
            self._tasks[task] = now_ms + call.timeout_ms + PATIENCE_MS, call
            self._shortest_ms = min(self._shortest_ms, call.timeout_ms)

    def outcomes(self) -> list[Finish]:
        """Return what has ended since the last time, each call once; never waits."""
        self._cancel_overdue()
        # A task that was cancelled before its first step never came to say so itself.
        for task in [task for task in self._cancelled if task.done()]:
            why = self._cancelled.pop(task)
            if task in self._tasks:
                _, call = self._tasks.pop(task)
                self._ended.append(_failed(call, why, self._clock()))
        ended, self._ended = self._ended, []
        return ended

    def waiting(self) -> int:
        """Return how many outcomes there are to fetch."""
        return len(self._ended)

    def in_flight(self) -> int:
        """Return how many calls have been submitted and have not ended."""
        return len(self._tasks)

    async def interrupt(self) -> None:
        """Give up what is in flight; what does not end by it in time is left behind."""
        tasks = list(self._tasks)
        for task in tasks:
            self._cancel(task, ProviderError(Outcome.INTERRUPTED, "the run stopped"))
        stubborn = await _ended_by(tasks, GIVE_UP_S)
        for task in stubborn:
            task.cancel()
        for task in await _ended_by(stubborn, LAST_WAIT_S):
            _leave_behind(task)
        self._tasks.clear()  # of those, too, that never came to their first step

    async def close(self) -> None:
        """Give up what is in flight and close the connections."""
        await self.interrupt()
        await self._connections.aclose()

    async def connect(self, provider: str, model: str) -> Provider:
        """Return a provider, connected once. Raises CrawlerError, ProviderError."""
        key = (provider, model)
        if key in self._providers:
            return self._providers[key]
        async with self._connecting:
            if key not in self._providers:
                kind = kind_of(provider)
                module = importlib.import_module(kind.module)
                whom = (model, provider) if kind.is_server else (model,)
                connection = module.connect(*whom)
                self._providers[key] = await self._connections.enter_async_context(connection)
            return self._providers[key]

    def _cancel_overdue(self) -> None:
        # A look at the oldest instead of a timer for each call: they are in the order in which they
        # began, and a quarter of a second is nothing to a time-out.
        now_ms = self._clock()
        for task, (overdue_at_ms, call) in self._tasks.items():
            if overdue_at_ms > now_ms:
                if overdue_at_ms - call.timeout_ms + self._shortest_ms > now_ms:
                    break  # whoever began later has time
                continue
            reason = f"no answer within {call.timeout_ms / 1000:g} s"
            self._cancel(task, ProviderError(Outcome.TRANSIENT, reason))

    def _cancel(self, task: asyncio.Task[None], why: ProviderError) -> None:
        """Cancel a call, once: a second time would strike its cleaning up."""
        if task not in self._cancelled:
            self._cancelled[task] = why
            task.cancel()

    async def _make(self, call: Call) -> None:
        """Make a call; whatever happens in it, it ends with one outcome."""
        task = asyncio.current_task()
        assert task is not None
        try:
            provider = self._providers.get((call.provider, call.model))
            if provider is None:
                provider = await self.connect(call.provider, call.model)
            if self._on_text is not None and isinstance(provider, StreamingProvider):
                answer = await provider.stream(call, partial(self._on_text, call))
            else:
                answer = await provider.generate(call)
            finish = _succeeded(call, answer, self._clock())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a provider's mistake
            finish = _failed(call, self._told(task, error), self._clock())
        failpoint("answered")
        self._ended.append(finish)
        self._cancelled.pop(task, None)
        self._tasks.pop(task, None)
        self._notify()

    def _told(self, task: asyncio.Task[None], error: BaseException) -> ProviderError:
        """Return what an exception says of the call."""
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, CrawlerError):
            kind = Kind.SETUP_KEY if error.exit_code is Exit.DENIED else Kind.SETUP
            return ProviderError(Outcome.DENIED, f"{error.what}: {error.cause}", kind=kind)
        # A provider can raise CancelledError by itself; then it is a mistake like any other.
        if isinstance(error, asyncio.CancelledError) and task in self._cancelled:
            return self._cancelled[task]
        return ProviderError(Outcome.TRANSIENT, _described(error))


async def _ended_by(
    tasks: Collection[asyncio.Task[None]], timeout_s: float
) -> set[asyncio.Task[None]]:
    """Wait for tasks to end, so long; return those that have not."""
    return (await asyncio.wait(tasks, timeout=timeout_s))[1] if tasks else set()


_LEFT_BEHIND: list[asyncio.Task[None]] = []


def _leave_behind(task: asyncio.Task[None]) -> None:
    """Let a loop end without waiting for a task that ignores every cancellation.

    `asyncio.run` waits for all tasks that are registered, without end. Taking a task from the
    register is what asyncio's documentation has for those who extend it. The task is kept alive:
    it would complain when it is collected.
    """
    asyncio._unregister_task(task)  # noqa: SLF001 - documented under "Extending"
    _LEFT_BEHIND.append(task)
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - as asyncio does for its own


def _succeeded(call: Call, answer: Answer, now_ms: int) -> Finish:
    kept = _kept(answer)
    finish = Finish(call.request_id, call.number, now_ms, Outcome.SUCCEEDED, **kept)
    if not finish.text:
        reason = "the answer is empty"
        raise ProviderError(
            Outcome.NO_ANSWER, reason, retry_after_ms=0, answer=answer, kind=Kind.NOT_AN_ANSWER
        )
    return finish


def _failed(call: Call, error: ProviderError, now_ms: int) -> Finish:
    finish = Finish(
        call.request_id,
        call.number,
        now_ms,
        error.outcome,
        reason=_storable(error.reason)[:REASON_LENGTH],
        status_code=_count(error.status_code),
        retry_after_ms=_pause(error.retry_after_ms),
        daily=bool(error.daily),
        reason_code=_note(error.kind),
        told=_told(error.told),
    )
    if error.answer is None:
        return finish
    kept = _kept(error.answer)
    kept |= {"text": kept["text"] or None, "told": kept["told"] or finish.told}
    return finish._replace(**kept)


def _kept(answer: Answer) -> dict[str, Any]:
    """Return what is kept of an answer, by the names that it has in `Finish`."""
    return {
        "text": _storable(answer.text),
        "tokens_in": _count(answer.tokens_in),
        "tokens_out": _count(answer.tokens_out),
        "tokens_thought": _count(answer.tokens_thought),
        "finish_reason": _note(answer.finish_reason),
        "model_version": _note(answer.model_version),
        "truncated": bool(answer.truncated),
        "thoughts": _storable(answer.thoughts)[:MOST_THOUGHTS],
        "tokens_cached": _count(answer.tokens_cached),
        "details": _details(answer.details),
        "told": _told(answer.told),
    }


def _described(error: BaseException) -> str:
    try:
        return redacted(f"{type(error).__name__}: {error}", secrets_of_environment())
    except Exception:  # noqa: BLE001 - an exception that can't even be printed
        return type(error).__name__


def _storable(text: str) -> str:
    """Return a text that can be stored as UTF-8: lone surrogates, which JSON can carry, can't."""
    if isinstance(text, str) and text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _count(value: object) -> int | None:
    """Return a whole number that a column can hold; a server may send anything."""
    if isinstance(value, int) and 0 <= value <= SQLITE_MAX:
        return value
    return None


def _note(value: object) -> str | None:
    """Return a short text that can be stored; a server may send anything."""
    return _storable(value)[:NOTE_LENGTH] if isinstance(value, str) and value else None


def _details(value: object) -> str | None:
    """Return a small object as JSON; None for what is none, or too large to be kept."""
    if not isinstance(value, Mapping) or not value:
        return None
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= MOST_DETAILS else None


def _told(value: object) -> tuple[Told, ...]:
    """Return what a server tells of its quotas; a provider may hand over anything."""
    return value if isinstance(value, tuple) and all(isinstance(x, Told) for x in value) else ()


def _pause(value: object) -> int | None:
    count = _count(value)
    return None if count is None else min(count, LONGEST_PAUSE_MS)
