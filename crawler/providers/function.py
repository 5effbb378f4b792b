"""Any async function from a prompt to a text, as a provider: what the Python API is given.

Rule: what the function raises is a transient failure, unless it raises a ProviderError itself.
"""

import inspect
from collections.abc import Awaitable, Callable

from crawler.protocol import Answer, Call, ProviderError
from crawler.providers.answers.check import examine, require_checks, wants_json
from crawler.states import Outcome

AsyncFunction = Callable[[str], Awaitable[str]]


class Function:
    """A provider that asks a function."""

    def __init__(self, function: AsyncFunction) -> None:
        self._function = function

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        if wants_json(call.params):
            require_checks(call)
        answer: object = self._function(call.prompt + call.prefill)
        if not inspect.isawaitable(answer):
            raise ProviderError(Outcome.DENIED, "the provider is no async function")
        text = await answer
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ProviderError(Outcome.REJECTED, f"the function returned {kind}, not str")
        if not wants_json(call.params):
            return Answer(call.prefill + text)
        kept, fault = examine(call.params, call.word, text, call.prefill)
        if fault is not None:
            reason = f"the answer {fault}"
            raise ProviderError(Outcome.TRANSIENT, reason, retry_after_ms=0, answer=Answer(kept))
        return Answer(kept)
