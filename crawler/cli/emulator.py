"""`crawler emulator`: Vertex AI on this machine, to try limits and failures without an account.

Rule: the options are the fields of `Settings`, by the same names; all of them are checked before
the server is imported.
"""

import asyncio
import json
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from crawler.cli.options import MOST
from crawler.cli.terminal import print_line, tell
from crawler.emulator.settings import KINDS, MODELS, OUTAGES, WINDOWS, Settings, WordFault
from crawler.errors import CrawlerError, Exit

DEFAULT_PORT = 8901
_TICK_S = 0.1
_COUNT = click.IntRange(1, MOST)


def _faults(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> Mapping[str, float]:
    """Return the rates of KIND=RATE. Raises BadParameter."""
    rates = {}
    for value in values:
        kind, _, rate = value.partition("=")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise click.BadParameter(f"{value!r}: write KIND=RATE", ctx, param) from None
    return rates


def _word_faults(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> Mapping[str, Sequence[WordFault]]:
    """Return the faults of WORD=KIND and WORD=KIND*TIMES by word. Raises BadParameter."""
    faults: dict[str, list[WordFault]] = {}
    for value in values:
        word, _, fault = value.rpartition("=")
        kind, star, times = fault.partition("*")
        if not word or (star and not times.isdecimal()):
            raise click.BadParameter(f"{value!r}: write WORD=KIND or WORD=KIND*TIMES", ctx, param)
        faults.setdefault(word, []).append(WordFault(kind, int(times) if star else None))
    return faults


def _outage(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Return the seconds of FROM,TO or FROM,TO,EVERY. Raises BadParameter."""
    if value is None:
        return None
    try:
        begins, ends, *again = map(float, value.split(",", 2))
    except ValueError:
        told = f"{value!r}: write FROM,TO or FROM,TO,EVERY in seconds"
        raise click.BadParameter(told, ctx, param) from None
    return begins, ends, *again


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, **{"show_default": "default" in attributes, **attributes})


@click.command(
    epilog=f"""\b
Kinds of faults:
  {", ".join(KINDS[:8])},
  {", ".join(KINDS[8:16])},
  {", ".join(KINDS[16:22])},
  {", ".join(KINDS[22:])}

\b
Examples:
  crawler emulator --per-minute 60 --latency-ms 800 --jitter-ms 300
  crawler emulator --fault unavailable=0.05 --fault hang=0.01 --word-fault abrogate=safety
  crawler emulator --word-fault 'laconic=internal*2' --outage 20,30 --log requests.jsonl""",
)
@_option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    metavar="N",
    help="0: any free one.",
)
@_option(
    "--latency-ms", type=click.IntRange(0, MOST), default=0, metavar="MS", help="Of an answer."
)
@_option(
    "--jitter-ms",
    type=click.IntRange(0, MOST),
    default=0,
    metavar="MS",
    help="Latency ± this much.",
)
@_option("--per-minute", type=_COUNT, metavar="N", help="Requests that are let in.")
@_option("--tokens-per-minute", type=_COUNT, metavar="N", help="Tokens, of requests and answers.")
@_option(
    "--per-day", type=_COUNT, metavar="N", help="Requests after which the day's quota is gone."
)
@_option("--max-concurrent", type=_COUNT, metavar="N", help="Calls at once.")
@_option(
    "--window", type=click.Choice(WINDOWS), default=WINDOWS[0], help="How a minute is counted."
)
@_option("--window-ms", type=_COUNT, default=60_000, metavar="MS", help="How long a minute is.")
@_option("--burst", type=_COUNT, metavar="N", help="Capacity of a bucket.  [default: --per-minute]")
@_option(
    "--tenants",
    type=click.IntRange(0, 10**6),
    default=0,
    metavar="N",
    help="Requests a minute of others.",
)
@_option("--retry-info/--no-retry-info", default=True, help="Tell whom it refuses when to return.")
@_option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=RATE",
    callback=_faults,
    help="How often: 0.05.",
)
@_option(
    "--word-fault",
    "word_faults",
    multiple=True,
    metavar="WORD=KIND[*TIMES]",
    callback=_word_faults,
    help="Always, or only the first times.",
)
@_option(
    "--outage",
    "outage_s",
    metavar="FROM,TO[,EVERY]",
    callback=_outage,
    help="Seconds from start; again after EVERY.",
)
@_option("--outage-kind", type=click.Choice(OUTAGES), default=OUTAGES[0])
@_option("--seed", type=int, default=0, help="Of latencies and faults.")
@_option(
    "--tls",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Encrypt, and write the certificate to this file.",
)
@_option(
    "--http-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Serve Google's REST and OpenAI's chat over HTTP, too.  [0: any free port]",
)
@_option(
    "--model",
    "models",
    multiple=True,
    default=MODELS,
    metavar="NAME",
    help="Served to OpenAI's clients.",
)
@_option("--log", type=click.Path(path_type=Path, dir_okay=False), help="A JSON line per request.")
def emulator(**options: Any) -> int:
    """Play Vertex AI on this machine, with quotas and failures, until Ctrl-C.

    Prints its endpoint at the start and its counts at the end, as lines of JSON. Without options
    every request is answered at once.
    """
    try:
        settings = Settings(**options)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    for port in (settings.port, settings.http_port):
        _check_port(port or 0)
    asyncio.run(_emulate(settings))
    return Exit.DONE


def _check_port(port: int) -> None:
    """Raise CrawlerError if a port can't be listened at: gRPC tells it late, and in many lines."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CrawlerError(
                f"the emulator can't listen at 127.0.0.1:{port}",
                error.strerror or str(error),
                "crawler emulator --port 0 takes a port that is free",
                Exit.CONFIGURATION,
            ) from error


async def _emulate(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    from crawler.emulator.server import serve  # noqa: PLC0415 - it takes most of a second

    async with serve(settings) as server:
        http = {"http": server.http_address} if server.http_address else {}
        _say(json.dumps({"endpoint": server.endpoint, **http}))
        if settings.tls is None:
            tell(f"export VERTEX_EMULATOR_HOST={server.endpoint}")
        else:
            tell(f"export GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={settings.tls}")
        if server.http_address:
            tell(f"export OPENAI_BASE_URL={server.http_address}/v1 OPENAI_API_KEY=emulated")
        await _watch(server, stop)
    _say(json.dumps(server.tally.summary()))


async def _watch(server: Any, stop: asyncio.Event) -> None:
    """Keep the outage, and show figures where there is a terminal, until told to stop."""
    is_live = sys.stderr.isatty()
    while not stop.is_set():
        await server.keep_outage()
        if is_live:
            _show(server)
        try:
            await asyncio.wait_for(stop.wait(), _TICK_S)
        except TimeoutError:
            continue
    if is_live:
        tell("")


def _show(server: Any) -> None:
    """Write the figures over those before."""
    tally = server.tally
    text = (
        f"{tally.codes.total()} received · {tally.codes['OK']} OK"
        f" · {tally.codes['RESOURCE_EXHAUSTED']} refused · {tally.in_flight} in flight"
        f" · {server.requests_last_minute()} in the last minute"
    )
    sys.stderr.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
    sys.stderr.flush()


def _say(text: str) -> None:
    """Print a line of data that somebody waits for."""
    print_line(text)
    sys.stdout.flush()
