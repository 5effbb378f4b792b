"""The key of a server: a variable, a file or the output of a command.

Rule: a key is sent to the server whose name it has, and to no other. What is read from a file or a
command is read again when it is refused, once, until a call has succeeded with it.
"""

import asyncio
import os
import shlex
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from urllib.parse import urlsplit

from crawler.errors import CrawlerError, Exit
from crawler.providers.openai.servers import server_of, variable
from crawler.redaction import remember

COMMAND_TIMEOUT_S = 30


class Key:
    """The key of a server, as it is now; "" where the server wants none.

    Args:
        name: the server's, whose variables are read.
        text: a key that was made here: then none is read.

    """

    def __init__(self, name: str, text: str = "") -> None:
        self._name = name
        self._is_made_here = bool(text)
        self._reading = asyncio.Lock()
        self._is_unproven = True
        self.text = text

    async def read(self) -> None:
        """Read the key. Raises CrawlerError."""
        self.text = await _read(self._name)
        remember([self.text])

    def prove(self) -> None:
        """Note that the server has accepted it: it may be read again when it is refused."""
        self._is_unproven = False

    async def has_changed(self, sent: str) -> bool:
        """Tell whether there is another key than the one that was sent and refused."""
        if self._is_made_here:
            return False
        async with self._reading:
            if self.text == sent and not (self._is_unproven and self._was_renewed):
                self._was_renewed = self._is_unproven = True
                try:
                    await self.read()
                except CrawlerError:
                    return False  # the refusal says more
            return self.text != sent

    _was_renewed = False

    def headers(self) -> dict[str, str]:
        """Return the header that it is sent in."""
        if not self.text:
            return {}
        header = server_of(self._name).key_header
        # A token of Microsoft's is one in JSON; a key of Azure is not.
        if header == "Authorization" or self.text.startswith("eyJ"):
            return {"Authorization": f"Bearer {self.text}"}
        return {header: self.text}


async def _read(name: str) -> str:
    plain, file, command = (
        variable(name, what) for what in ("API_KEY", "API_KEY_FILE", "API_KEY_COMMAND")
    )
    source, key = plain, os.environ.get(plain, "").strip()
    if not key and (path := os.environ.get(file)):
        source, key = file, await asyncio.to_thread(_content, path, file)
    elif not key and (line := os.environ.get(command)):
        source, key = command, await _output(line, command)
    elif not key and server_of(name).google:
        source, key = "Google Cloud", await asyncio.to_thread(_google_token)
    if not (key.isascii() and key.isprintable()):
        cause = "a line break or a letter in it can't be sent"
        raise CrawlerError(f"{source} is no key", cause, f"export {plain}=…", Exit.DENIED)
    if not key and source != plain:
        raise _unread(source, "there is nothing in it")
    return key


def _google_token() -> str:
    """Return a token of Google's, as Vertex AI's other face is asked with."""
    from crawler.providers.vertex.access import fetch_token  # noqa: PLC0415 - for this name alone

    return fetch_token()


def require_key(name: str, key: str, base_url: str) -> None:
    """Refuse a key that is missing, or that another one is in the way of. Raises CrawlerError."""
    plain, address = variable(name, "API_KEY"), variable(name, "BASE_URL")
    host = urlsplit(base_url).hostname
    if key and urlsplit(base_url).username is not None:
        what, why = f"only one of {plain} and the user in {address} can be sent", "both are set"
    elif not key and host == urlsplit(server_of(name).base_url).hostname:
        what, why = f"there is no key for {host}", f"{plain} is not set"
    else:
        return
    hint = f"export {plain}=…, or {address}=… for another server"
    raise CrawlerError(what, why, hint, Exit.DENIED)


def _content(path: str, source: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise _unread(source, getattr(error, "strerror", None) or "it is no text") from error


async def _output(line: str, source: str) -> str:
    """Return what a command prints; it is run without a shell."""
    try:
        child = await asyncio.create_subprocess_exec(
            *shlex.split(line), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except (OSError, ValueError, TypeError) as error:
        cause = getattr(error, "strerror", None) or "it is no command"
        raise _unread(source, cause) from error
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            output, _ = await child.communicate()
    except TimeoutError as error:
        raise _unread(source, f"it printed no key within {COMMAND_TIMEOUT_S} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise _unread(source, f"the command ended with code {child.returncode}")
    return output.decode("utf-8", "replace").strip()


def _unread(source: str, cause: str) -> CrawlerError:
    return CrawlerError(
        f"{source} gives no key",
        cause,
        "mend it; a command is run without a shell, and prints the key and nothing else",
        Exit.DENIED,
    )
