"""An answer in events, as OpenAI-compatible servers stream it: put together into one body.

Rule: pure; the events of an answer are gathered into the body that would have said the same at
once, so that one function reads both, and both are read alike.
"""

import json
from collections.abc import Sequence
from typing import Any

from crawler.providers.answers.body_values import THOUGHTS
from crawler.providers.openai.reply import error_in_stream, no_form
from crawler.states.kinds import Kind

DONE = b"[DONE]"
_FACTS = ("model", "usage", "system_fingerprint")


class Gathering:
    """The events of one answer.

    Args:
        text_in: where an event has its text: `content` in a chat, `text` in a completion.
        secrets: what is left out of all reasons.

    """

    def __init__(self, text_in: str, secrets: Sequence[str] = ()) -> None:
        self._text_in = text_in
        self._secrets = secrets
        self._choice: dict[str, Any] | None = None
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._facts: dict[str, Any] = {}
        self.size = 0
        """Bytes of all events."""
        self.ended = False
        """The server has said that nothing more comes."""

    @property
    def whole(self) -> bool:
        """The text has come to its end, as far as the server says so at all."""
        return self.ended or (self._choice or {}).get("finish_reason") is not None

    def add(self, event: bytes) -> str:
        """Take in the data of an event; return the text in it, if any. Raises ProviderError."""
        if event.strip() == DONE:
            self.ended = True
            return ""
        self.size += len(event)
        try:
            content = json.loads(event.decode())
        except (RecursionError, ValueError) as error:
            raise no_form(Kind.HALF) from error
        try:
            if content.get("error"):
                raise error_in_stream(content["error"], event, self._secrets)
            # The last of each: some servers count in every event all that was used so far.
            self._facts |= {name: content[name] for name in _FACTS if content.get(name)}
            return "".join([self._add_choice(choice) for choice in content.get("choices") or ()])
        except (AttributeError, TypeError) as error:
            raise no_form() from error

    def body(self) -> bytes:
        """Return the body that would have said all this at once."""
        written = {self._text_in: "".join(self._texts), "refusal": "".join(self._refusals)}
        written |= {"reasoning_content": "".join(self._thoughts)} if self._thoughts else {}
        choices = []
        if self._choice is not None:
            choices = [{**self._choice, **written, "message": written}]
        # As JSON, because two halves of a character in two events are one character only there.
        return json.dumps({**self._facts, "choices": choices}).encode()

    def _add_choice(self, choice: Any) -> str:
        if choice.get("index"):
            return ""  # another answer to the same question: only the first is read
        self._choice = self._choice or {"finish_reason": None}
        if choice.get("finish_reason") is not None:
            self._choice["finish_reason"] = choice["finish_reason"]
        delta = choice if self._text_in == "text" else choice.get("delta") or {}
        text, refused = delta.get(self._text_in) or "", delta.get("refusal") or ""
        if not isinstance(text, str) or not isinstance(refused, str):
            raise no_form()
        self._texts.append(text)
        thought = next((delta[name] for name in THOUGHTS if delta.get(name)), "")
        if isinstance(thought, str):
            self._thoughts.append(thought)
        self._refusals.append(refused)
        return text
