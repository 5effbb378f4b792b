"""A ledger with two of each: two limits, two prompts under one of them, two versions.

No limit is named like the provider of its prompts.
"""

from collections.abc import Iterable

from crawler.ledger import control, intake
from crawler.ledger.limits import put_limit
from crawler.protocol import Word
from tests.conftest import Ledger


class Several(Ledger):
    """The prompt `p` asks under the limit `quota`, `q` and `r` ask under `other`."""

    def __init__(self, **facts) -> None:
        super().__init__(**facts)
        self.p = self.prompt
        self.q = self.put("q", "Of {word}", limit="other")
        self.r = self.put("r", "On {word}", limit="other")

    def put(self, name: str, template: str, *, limit: str, **params) -> intake.Prompt:
        """Make a version of a prompt the current one."""
        limit_id = put_limit(self.conn, limit, 10)
        spec = intake.PromptSpec(name, template, "scripted", "m", params)
        return intake.put_prompt(self.conn, spec, limit_id, self.now_ms)[0]

    def ask(self, prompt: intake.Prompt, words: Iterable[str]) -> None:
        """Add words, and ask a prompt about them."""
        rows = [Word(word, {}) for word in words]
        intake.add_words(self.conn, prompt.id, rows, self.now_ms)

    def fix_limit(self, limit: str, per_minute: int | None) -> None:
        """Set a limit that is kept as it is set."""
        control.set_per_minute(self.conn, limit, per_minute, self.now_ms)
        control.set_adaptive(self.conn, limit, self.now_ms, adaptive=False)

    def limit(self, name: str, column: str) -> object:
        """Return a column of a limit."""
        return self.row(f"SELECT {column} FROM limits WHERE name = ?", name)[0]

    def state_of(self, prompt: intake.Prompt) -> dict[str, str]:
        """Return the states of a prompt's requests by their words."""
        return dict(
            self.conn.execute(
                "SELECT text, state FROM requests JOIN words ON words.id = word_id"
                " WHERE prompt_id = ?",
                (prompt.id,),
            )
        )


def by_prompt(leases: Iterable) -> dict[int, list[str]]:
    """Return the words that were leased, by the id of their prompt."""
    found: dict[int, list[str]] = {}
    for lease in leases:
        found.setdefault(lease.prompt_id, []).append(lease.word)
    return found
