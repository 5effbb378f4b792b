"""`crawler prompt`: what is asked."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import click

from crawler.cli.definition import read_params, read_template
from crawler.cli.options import changed_database_option, database_option, found, not_empty
from crawler.cli.prompt_edit import edit, put, remove
from crawler.cli.terminal import (
    as_record,
    print_json,
    print_line,
    print_table,
    printable,
    printable_lines,
    tell,
)
from crawler.clock import wall_ms
from crawler.errors import CrawlerError, Exit, quoted
from crawler.ledger.intake import (
    Prompt,
    PromptSpec,
    current_prompt,
    prompts,
    same_definition,
)
from crawler.providers import check_params, kind_of, model_for
from crawler.providers.openai.models import name_of
from crawler.providers.openai.servers import set_up
from crawler.storage.database import reading, writing
from crawler.template import Template


@click.group(invoke_without_command=True)
@click.pass_context
def prompt(ctx: click.Context) -> None:
    """Add, edit, list and remove prompts: what is asked about words, and of whom."""
    if ctx.invoked_subcommand is None:
        print_line(ctx.get_help())


prompt.add_command(edit)
prompt.add_command(remove)


@prompt.command(
    epilog="""\b
Examples:
  crawler prompt add define --template "Define {word} in one sentence." --provider local
  crawler prompt add study-notes --template @notes.txt --provider openai --model gpt-4o-mini \\
      --param max_output_tokens=500 --param temperature=0.3
  crawler prompt add study-notes --template @notes.txt --provider scripted --schema @notes.json
  crawler sql "select word, definition from study_notes\""""
)
@click.argument("name", callback=not_empty)
@click.option("--template", required=True, help="The text, or @FILE. {word} is the word.")
@click.option(
    "--provider", required=True, help="vertex, local, scripted, openai, groq … or a NAME of yours."
)
@click.option("--model", help="The model's name; for local it may be a GGUF file.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="For the provider.")
@click.option("--schema", help="The JSON Schema of an answer, or @FILE: its fields are columns.")
@click.option(
    "--limit", callback=not_empty, help="The quota that it shares.  [default: PROVIDER/MODEL]"
)
@changed_database_option
def add(
    name: str,
    template: str,
    provider: str,
    model: str | None,
    params: Sequence[str],
    schema: str | None,
    limit: str | None,
    db: Path,
) -> None:
    """Add a prompt.

    A provider is vertex, local, scripted, or an OpenAI-compatible server: openai, groq, openrouter,
    mistral, deepseek, together, azure, gemini, or any NAME with NAME_BASE_URL in the environment
    (and NAME_API_KEY, NAME_API_KEY_FILE or NAME_API_KEY_COMMAND).

    In the template {word} is the word and {NAME} a column of its list; [[ … ]] stays only where
    every name in it has a value; what follows {answer} begins the answer. What is there already is
    changed with crawler prompt edit.

    With a schema an answer is a JSON object, and the prompt has a view of its own, called like it,
    with a column for each property of the schema.
    """
    kind = kind_of(provider)
    spec = PromptSpec(
        name,
        read_template(template),
        provider,
        model_for(provider, model),
        read_params(params, schema),
    )
    check_params(spec.provider, spec.model, spec.params)
    with writing(db, wall_ms()) as writer:
        added, new, notes = writer.run(_put, spec, limit, kind.concurrency)
    tell(f"{name} version {added.version} {'added' if new else 'is the current one'}")
    for note in notes:
        tell(note)
    names = Template(spec.template).all_names()
    if "word" not in names:
        tell(
            f"is that meant? There is no {{word}} in the template; of a word is told only its"
            f" {' and '.join(sorted(names))}"
        )


@prompt.command("list", epilog="Example: crawler prompt list --json")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_option
def list_(db: Path, *, as_json: bool) -> None:
    """List every version of every prompt; * marks the current ones."""
    with reading(db) as conn:
        known = [row for row in prompts(conn) if not row.removed]
    if as_json:
        print_json([as_record(row) for row in known])
        return
    print_table(
        ("", "prompt", "version", "provider", "model", "limit"),
        [
            ("*" if row.current else "", row.name, row.version, row.provider, row.model, row.limit)
            for row in known
        ],
    )


@prompt.command(epilog="Example: crawler prompt show study-notes")
@click.argument("name")
@database_option
def show(name: str, db: Path) -> None:
    """Show the current version of a prompt."""
    with reading(db) as conn:
        row = found(current_prompt(conn, name), name)
    print_line(
        f"{printable(row.name)} version {row.version}: {printable(row.provider)},"
        f" {printable(row.model)}"
    )
    for param, value in row.params.items():
        print_line(f"  {printable(param)} = {printable(json.dumps(value, ensure_ascii=False))}")
    print_line()
    print_line(printable_lines(row.template))


@prompt.command(epilog="Examples: crawler prompt models groq · crawler prompt models")
@click.argument("provider", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(provider: str | None, *, as_json: bool) -> None:
    """List the models of a server, or of every one that the environment has a key or address of."""
    names = [provider] if provider else set_up(os.environ)
    if not names:
        raise CrawlerError(
            "there is no server to ask",
            "no variable NAME_API_KEY or NAME_BASE_URL is set",
            "export GROQ_API_KEY=…, for example, then crawler prompt models groq",
            Exit.CONFIGURATION,
        )
    listed = [(name, model) for name in names for model in asyncio.run(_models_of(name))]
    if as_json:
        print_json([{"provider": name, "model": model} for name, model in listed])
    else:
        print_table(("provider", "model"), listed)


async def _models_of(provider: str) -> list[str]:
    """Return the models that a server lists. Raises CrawlerError if it lists none."""
    cause = "only an OpenAI-compatible server is asked for it"
    if kind_of(provider).is_server:
        from crawler.providers.openai.service import connect  # noqa: PLC0415 - what only this needs

        async with connect("", provider) as server:
            found = await server.models()
        if found:
            return sorted(map(name_of, found))
        cause = "it can't be reached, refuses the key, or offers none"
    raise CrawlerError(
        f"{provider} has no list of models",
        cause,
        "a call may work all the same: crawler prompt add --provider … --model …",
        Exit.UNREACHABLE if kind_of(provider).is_server else Exit.USAGE,
    )


def _put(
    conn: sqlite3.Connection, spec: PromptSpec, named: str | None, concurrency: int | None
) -> tuple[Prompt, bool, list[str]]:
    """Add a prompt; return it, whether it is new, and notes. One that was removed is back.

    Raises CrawlerError for another of its name.
    """
    old = current_prompt(conn, spec.name)
    known = same_definition(conn, spec)
    if old is not None and (known is None or known.id != old.id):
        raise _other(old, known)
    return put(conn, spec, named, concurrency)


def _other(old: Prompt, known: Prompt | None) -> CrawlerError:
    """Return the error for a name that asks something else; ``known``: an older, equal version."""
    typed = click.get_current_context().params
    options = [
        f"--{option} {quoted(value)}"
        for option in ("template", "provider", "model", "schema", "limit")
        if (value := typed[option]) is not None
    ]
    options += [f"--param {quoted(value)}" for value in typed["params"]]
    change = f"--to {known.version}" if known else " ".join(options)
    return CrawlerError(
        f"there is a prompt {printable(old.name)!r} already, and it asks something else",
        f"it is version {old.version} ({printable(old.provider)}, {printable(old.model)}); what it"
        " has answered stays when it is edited, and is not asked again",
        f"crawler prompt edit {quoted(old.name)} {change}",
        Exit.USAGE,
    )
