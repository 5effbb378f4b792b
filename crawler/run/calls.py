"""From a lease to a call: the prompt is rendered, and all that the executor needs is a plain value.

Rule: pure.
"""

import json

from crawler.ledger.intake import Prompt
from crawler.ledger.lease import Lease
from crawler.ledger.record import Finish
from crawler.policy import Policy
from crawler.protocol import Call
from crawler.states import Outcome
from crawler.template import MissingField, Template


class UnsendableError(ValueError):
    """The ledger says that this request can't be sent, and why."""


def to_call(lease: Lease, prompt: Prompt, template: Template, policy: Policy) -> Call:
    """Return the call for a leased request. Raises ValueError if it can't be sent."""
    if lease.refusal is not None:
        raise UnsendableError(lease.refusal)
    rendered = template.render(lease.word, json.loads(lease.fields) if lease.fields else {})
    return Call(
        request_id=lease.request_id,
        number=lease.number,
        word=lease.word,
        provider=prompt.provider,
        model=prompt.model,
        prompt=rendered.prompt,
        prefill=rendered.prefill,
        params=prompt.params,
        timeout_ms=policy.call_timeout_ms,
    )


def unsent(lease: Lease, error: ValueError, now_ms: int) -> Finish:
    """Return the end of a request that `to_call` refused; nothing of it has left the machine."""
    reason = f"the fields of this word can't be read ({error})"
    if isinstance(error, UnsendableError):
        reason = str(error)
    if isinstance(error, MissingField):
        reason = f"the template needs {{{error}}}, which this word has not"
    return Finish(
        lease.request_id, lease.number, now_ms, Outcome.REJECTED, reason=reason, sent=False
    )
