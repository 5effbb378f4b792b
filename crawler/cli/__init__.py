"""The program `crawler`: commands are loaded when they are called, errors are three lines.

Rule: data goes to standard output, everything else to standard error; a command that only reads
never imports what only a running crawl needs.
"""

import importlib
import os
import sys
import traceback
from copy import copy
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

import click

from crawler.cli.terminal import as_started, nowhere, print_line, program, tell, tell_error
from crawler.errors import CrawlerError, Exit, quoted
from crawler.storage import waiting


class Command(NamedTuple):
    """Where a command is, and what `--help` says of it."""

    module: str
    help: str


COMMANDS = MappingProxyType(
    {
        "seed": Command("crawler.cli.seed", "Have a model write the list of words."),
        "prompt": Command("crawler.cli.prompt", "What is asked, and of whom."),
        "add": Command("crawler.cli.add", "Add words: files, standard input or as they are."),
        "run": Command("crawler.cli.run", "Ask; stop and run again as you like."),
        "ask": Command("crawler.cli.ask", "Ask about one word now, and see the answer come."),
        "status": Command("crawler.cli.status", "How far, how fast, what it waits for."),
        "show": Command("crawler.cli.show", "What became of a word."),
        "sql": Command("crawler.cli.sql", "Ask the database in SQL."),
        "export": Command("crawler.cli.export", "Write the answers to a file."),
        "rename": Command("crawler.cli.rename", "Mend a word: rename OLD NEW."),
        "remove": Command("crawler.cli.listed", "Take words off the list; answers are kept."),
        "mark": Command("crawler.cli.mark", "Mark answers good or bad."),
        "retry": Command("crawler.cli.listed", "Ask again: what has failed, is stale, or a word."),
        "cancel": Command("crawler.cli.control", "Don't ask what has not been asked."),
        "pause": Command("crawler.cli.control", "Start nothing more, until resume."),
        "resume": Command("crawler.cli.control", "Go on after a pause."),
        "limit": Command("crawler.cli.control", "Show or set limits."),
        "backup": Command("crawler.cli.backup", "Copy the database, whole, while it is crawled."),
        "check": Command("crawler.cli.check", "Check the file's invariants."),
        "emulator": Command("crawler.cli.emulator", "Play Vertex AI, to try limits and failures."),
    }
)


def _as_started(command: click.Command) -> click.Command:
    """Return a command whose examples work for who has started the program."""
    told = copy(command)
    told.epilog = as_started(command.epilog or "")
    if isinstance(command, click.Group):
        assert isinstance(told, click.Group)
        told.commands = {name: _as_started(one) for name, one in command.commands.items()}
    return told


class LazyGroup(click.Group):
    """A group whose commands are imported when somebody asks for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name].module)
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return _as_started(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named. Raises CrawlerError with the nearest one."""
        name, *others = args
        near = get_close_matches(name, COMMANDS, n=1)
        if near and name not in COMMANDS:
            raise CrawlerError(
                f"there is no command {name!r}",
                f"the nearest is {near[0]}",
                " ".join(["crawler", near[0], *map(quoted, others)]),
                Exit.USAGE,
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whoever reads its output may stop reading it."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Caught here, because click would end the program with code 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.WORK_LEFT if ctx.invoked_subcommand == "run" else Exit.DONE
        return code

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the commands do, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: crawler add words.txt, then crawler run. Ctrl-C and run again at any time.",
)
@click.option("--db", metavar="PATH", help="The database  [env: CRAWLER_DB; default: crawl.db]")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="quotacrawl", prog_name="crawler")
@click.pass_context
def cli(ctx: click.Context, db: str | None, *, debug: bool) -> None:
    """Ask a model about every word of a list, for days if need be, and lose nothing.

    Words and the state of every request are rows of one SQLite file; so are the answers.
    """
    del db, debug  # read by the options of the commands, and by `main`
    if ctx.invoked_subcommand is None:
        print_line(ctx.get_help())


def main() -> None:
    """Run the program and exit with one of the codes of `Exit`."""
    if sys.stderr is None:  # somebody has closed it
        sys.stderr = nowhere()
    waiting.say = tell
    try:
        code = cli.main(prog_name=program(), standalone_mode=False)
    except KeyboardInterrupt:
        code = Exit.WORK_LEFT
    except Exception as error:  # noqa: BLE001 - the edge of the program
        code = _explain(error)
    _let_go_of_standard_error()
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _let_go_of_standard_error() -> None:
    """Write what is left of what was told; where nobody takes it, Python would change our code."""
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = nowhere()


def _one_dash(error: click.NoSuchOption) -> str | None:
    """Return the argument that is the name of an option but for one dash."""
    command = error.ctx.command if error.ctx else cli
    names = {name for param in command.params for name in param.opts}
    typed = (arg.partition("=")[0] for arg in sys.argv[1:])
    return next((arg for arg in typed if arg[:2] != "--" and f"-{arg}" in names), None)


def _usage_cause(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption) and (meant := _one_dash(error)):
        return f"there is no option {meant}; its name has two dashes: -{meant}"
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        return f"there is no option {error.option_name}; the nearest is {error.possibilities[0]}"
    return error.format_message()


def _explain(error: Exception) -> int:
    """Tell a person what went wrong; return the exit code."""
    if isinstance(error, click.Abort):
        return Exit.WORK_LEFT
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        told = CrawlerError(
            "the command can't be understood",
            _usage_cause(error),
            f"{context.command_path if context else program()} --help",
            Exit.USAGE,
        )
    elif isinstance(error, CrawlerError):
        told = error
    elif isinstance(error, UnicodeEncodeError):
        told = CrawlerError(
            "the command can't be understood",
            "something in it is not UTF-8 text",
            "put such words into a UTF-8 file: crawler add FILE",
            Exit.USAGE,
        )
    elif isinstance(error, OSError):
        told = CrawlerError(
            "a file can't be read or written",
            str(error),
            "check the path and the space on the disk",
            Exit.DATABASE,
        )
    else:
        told = CrawlerError(
            "unexpected error",
            f"{type(error).__name__}: {error}",
            "run it again with crawler --debug …, and report what it prints",
            Exit.UNEXPECTED,
        )
    if "--debug" in sys.argv:
        for line in "".join(traceback.format_exception(error)).splitlines():
            tell(line)
    tell_error(told)
    return told.exit_code
