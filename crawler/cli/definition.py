"""What makes a prompt, as it is typed: template, parameters, schema.

Rule: it is checked where it is typed; what would be sent to no good end is refused.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from crawler.answer_schema import SCHEMA, require_schema
from crawler.cli.options import named_value
from crawler.errors import CrawlerError, Exit, quoted
from crawler.template import Template, flaw_of


def read_template(text: str) -> str:
    """Return a template, also of a file that is named after an @. Raises CrawlerError."""
    named, text = text, _content(text, "template")
    if not Template(text).all_names():
        is_file = text == named and os.path.isfile(text)  # noqa: PTH113 - it may be a long text
        raise CrawlerError(
            "the template asks the same of every word",
            "it is the name of a file, and not what is in it"
            if is_file
            else "it has no {word} in it",
            f"--template {quoted(f'@{text}')}"
            if is_file
            else 'write for example "Define {word} in one sentence."',
            Exit.USAGE,
        )
    if flaw := flaw_of(text):
        raise CrawlerError(flaw.what, flaw.cause, flaw.hint, Exit.USAGE)
    return text


def _content(text: str, what: str) -> str:
    """Return a text as it is, or what is in the file that is named after an @."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CrawlerError(
            f"the {what} {text[1:]} can't be read",
            str(error),
            "check the path after @",
            Exit.USAGE,
        ) from error


def read_params(named: Sequence[str], schema: str | None) -> dict[str, Any]:
    """Return the parameters that the options say. Raises CrawlerError for a schema that is none."""
    params = dict(named_value(text) for text in named)
    if schema is not None:
        if SCHEMA in params:
            raise click.UsageError(f"--schema and --param {SCHEMA} say the same: give one of them")
        params[SCHEMA] = _schema(_content(schema, "schema"))
    require_schema(params)
    return params


def _schema(text: str) -> Any:
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        raise CrawlerError(
            "the schema is not JSON", str(error), "mend it, or name its file: @FILE", Exit.USAGE
        ) from error
