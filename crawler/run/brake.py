"""Whether all calls are refused alike: a run then stops before it has failed the whole list.

Rule: pure. It is told of each call that begins or ends, and asks neither a ledger nor a clock.
"""

from crawler.ledger.record import Finish
from crawler.states import OPENS_GATE, Outcome

SERVED = frozenset({Outcome.SUCCEEDED, Outcome.BLOCKED})
"""What shows that a prompt's calls are in order: the model's name, the parameters."""
REACHED = OPENS_GATE | {Outcome.THROTTLED}
"""What shows that there is a server."""


class Brake:
    """What the calls of a run have come to, by prompt.

    A prompt that was served once is never in doubt again. Any other is, as soon as so many of its
    calls were rejected: then nothing more may start until the calls that are still in flight have
    said whether it is the prompt or the words.

    Args:
        vain_rejections: how many rejections are too many for a prompt that was never served.

    """

    def __init__(self, vain_rejections: int) -> None:
        self.reached = False
        """Some server has answered, whatever it said."""
        self._vain_rejections = vain_rejections
        self._served: set[int] = set()
        self._prompt_of: dict[int, int] = {}  # of each request in flight
        self._rejections: dict[int, list[str]] = {}  # their reasons, by prompt never served

    def served(self, prompt_id: int) -> None:
        """Take note that a prompt has been served, now or in the past."""
        self._served.add(prompt_id)
        self._rejections.pop(prompt_id, None)

    def begun(self, request_id: int, prompt_id: int) -> None:
        """Take note of a call."""
        self._prompt_of[request_id] = prompt_id

    def ended(self, finish: Finish) -> None:
        """Take note of a call's end."""
        prompt_id = self._prompt_of.pop(finish.request_id)
        self.reached = self.reached or finish.outcome in REACHED
        if finish.outcome in SERVED:
            self.served(prompt_id)
        elif finish.outcome is Outcome.REJECTED and prompt_id not in self._served:
            self._rejections.setdefault(prompt_id, []).append(finish.reason or "")

    def in_doubt(self) -> list[int]:
        """Return the prompts that were rejected too often and never served."""
        most = self._vain_rejections
        return [prompt for prompt, reasons in self._rejections.items() if len(reasons) >= most]

    def refusal(self) -> str | None:
        """Return why a prompt is refused, whatever the word; None where none is, or none for sure.

        It is for sure when no call is in flight any more that could still be served.
        """
        for prompt_id in self.in_doubt():
            if prompt_id not in self._prompt_of.values():
                return self._rejections[prompt_id][-1]
        return None
