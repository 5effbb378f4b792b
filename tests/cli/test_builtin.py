"""The built-in prompt says how much a model may think, where thoughts count towards its answer."""

import pytest

from crawler.cli.builtin import study_notes
from crawler.providers import check_params


@pytest.mark.parametrize(
    ("provider", "model", "thinking"),
    [
        ("vertex", None, 0),
        ("vertex", "gemini-2.5-flash-lite", 0),
        ("vertex", "publishers/google/models/gemini-2.5-flash", 0),
        ("vertex", "gemini-2.5-pro", 128),
        ("vertex", "gemini-3-pro", "low"),
        ("vertex", "text-bison@002", None),
        ("vertex", "endpoints/1", None),
        ("openai", "gemini-2.5-flash", None),
        ("scripted", None, None),
    ],
)
def test_thoughts_do_not_use_up_the_answer(provider, model, thinking):
    prompt = study_notes(provider, model)
    assert prompt.params.get("thinking") == thinking
    check_params(provider, prompt.model, prompt.params)
