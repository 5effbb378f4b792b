"""Where the service is, and as whom we come.

Rule: found once, when a run begins, and never written anywhere. A token is fetched before it ends
and sent as a plain header: gRPC's own way asks a plug-in at every call, costs twice as much, and
makes a refused refresh look like a server that is away.
"""

import asyncio
import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError, TransportError

from crawler.clock import since_boot_ms
from crawler.errors import CrawlerError, Exit
from crawler.protocol import ProviderError
from crawler.states import Outcome

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
DEFAULT_LOCATION = "global"
EMULATED_PROJECT = "emulated"
REASON_LENGTH = 300
TOKEN_TIMEOUT_S = 30
FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 60_000
"""Between two tries to fetch a token."""
SECRET = re.compile(r"[\w.+/=%-]{60,}")
"""What looks like a token or a signature."""

_ENDPOINT = re.compile(r"(?:https://)?([\w.-]+|\[[0-9a-fA-F:]+\])(?::([0-9]{1,5}))?/?", re.ASCII)
_LOCATION = re.compile(r"[a-z0-9-]+")

Headers = tuple[tuple[str, str], ...]


class Access(NamedTuple):
    """The way to a model."""

    target: str
    """``host:port``."""
    resource: str
    """The model's full name."""
    credentials: Any
    """None for an emulator, which is spoken to in plain text."""


def find_access(model: str) -> Access:
    """Return the way to a model, from the environment. Raises CrawlerError. Blocks."""
    emulator = os.environ.get("VERTEX_EMULATOR_HOST", "").strip()
    location = os.environ.get("GOOGLE_CLOUD_LOCATION", "").strip() or DEFAULT_LOCATION
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip()
    if emulator:
        require_loopback(emulator)
        return Access(emulator, resource_name(model, project or EMULATED_PROJECT, location), None)
    import google.auth  # noqa: PLC0415 - an emulator needs none of it

    key = os.environ.get("GOOGLE_API_KEY", "").strip()
    if key and not project and not model.startswith("projects/"):
        return Access(_endpoint() or _host("global"), express_name(model), _key_credentials(key))
    try:
        credentials, usual_project = google.auth.default(scopes=SCOPES)
    except Exception as error:  # a file may hold anything, and then the library raises anything
        raise _no_credentials(error) from error
    project = project or usual_project or ""
    if not project and not model.startswith("projects/"):
        raise CrawlerError(
            "the Google Cloud project is not known",
            "neither GOOGLE_CLOUD_PROJECT nor the credentials name one",
            "export GOOGLE_CLOUD_PROJECT=your-project",
            Exit.CONFIGURATION,
        )
    if not model.startswith("projects/") and not _LOCATION.fullmatch(location):
        raise CrawlerError(
            "GOOGLE_CLOUD_LOCATION is no location of Google Cloud",
            f"it is {location!r}, and should look like europe-west4 (in lower case), us or global",
            "export GOOGLE_CLOUD_LOCATION=global",
            Exit.CONFIGURATION,
        )
    resource = resource_name(model, project, location)
    return Access(_endpoint() or _host(location_of(resource)), resource, credentials)


def _endpoint() -> str | None:
    """Return the ``host:port`` that VERTEX_ENDPOINT names, if it does. Raises CrawlerError."""
    named = os.environ.get("VERTEX_ENDPOINT", "").strip()
    if not named:
        return None
    match = _ENDPOINT.fullmatch(named)
    if match is None or not 0 < int(match[2] or 443) < 2**16:
        raise CrawlerError(
            "VERTEX_ENDPOINT is no address",
            "it has to be a host, or host:port; what is sent there is encrypted",
            "export VERTEX_ENDPOINT=1234.europe-west4-567.prediction.vertexai.goog",
            Exit.CONFIGURATION,
        )
    return f"{match[1]}:{match[2] or 443}"


def express_name(model: str) -> str:
    """Return the name of a model where a key takes the place of a project. Raises CrawlerError."""
    if model.startswith(("endpoints/", "models/")):
        raise CrawlerError(
            "a model of your own needs a project",
            "GOOGLE_API_KEY is set and GOOGLE_CLOUD_PROJECT is not, so that the key is used",
            "export GOOGLE_CLOUD_PROJECT=your-project",
            Exit.CONFIGURATION,
        )
    publisher, _, name = model.removeprefix("publishers/").replace("/models/", "/").rpartition("/")
    return f"publishers/{publisher or 'google'}/models/{name}"


def fetch_token() -> str:
    """Return a new token of the credentials that are there. Raises CrawlerError. Blocks."""
    import google.auth.transport.requests  # noqa: PLC0415 - an emulator needs none of it

    try:
        credentials: Any = google.auth.default(scopes=SCOPES)[0]
        credentials.refresh(google.auth.transport.requests.Request())
    except Exception as error:  # a file may hold anything, and then the library raises anything
        raise _no_credentials(error) from error
    return str(credentials.token)


def _key_credentials(key: str) -> Any:
    import google.auth.api_key  # noqa: PLC0415 - an emulator needs none of it

    if not (key.isascii() and key.isprintable()):
        raise CrawlerError(
            "GOOGLE_API_KEY is no key",
            "a line break or a letter in it can't be sent",
            "export GOOGLE_API_KEY=…",
            Exit.DENIED,
        )
    made: Any = google.auth.api_key.Credentials
    return made(key)


def require_loopback(address: str) -> None:
    """Refuse an emulator elsewhere: prompts would leave this machine in plain text."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^\[\]:]+)):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[3]) < 2**16:
        cause = f"{address!r} is not host:port"
    elif match[2] != "localhost" and not _is_loopback(match[1] or match[2]):
        cause = f"{match[1] or match[2]} is not this machine, and all would be sent in plain text"
    else:
        return
    raise CrawlerError(
        "this address can't be that of an emulator",
        cause,
        "crawler emulator prints its address; unset VERTEX_EMULATOR_HOST for Vertex AI itself",
        Exit.CONFIGURATION,
    )


def resource_name(model: str, project: str, location: str) -> str:
    """Return the full name of a model.

    ``gemini-2.5-flash`` is Google's; ``PUBLISHER/MODEL`` and ``publishers/…`` somebody else's;
    ``endpoints/ID`` and ``models/ID`` are the project's own; ``projects/…`` is whole already.
    """
    if model.startswith("projects/"):
        return model
    parent = f"projects/{project}/locations/{location}"
    if model.startswith(("endpoints/", "models/", "publishers/")):
        return f"{parent}/{model}"
    publisher, _, name = model.rpartition("/")
    return f"{parent}/publishers/{publisher or 'google'}/models/{name}"


def location_of(resource: str) -> str:
    """Return the location in a full name. Raises CrawlerError."""
    match = re.match(r"projects/[^/]+/locations/([a-z0-9-]+)/.", resource)
    if match is None:
        raise CrawlerError(
            f"{resource!r} is no name of a model",
            "a full one looks like projects/P/locations/L/endpoints/ID, with L in lower case",
            "crawler run --model gemini-2.5-flash, or a full name",
            Exit.CONFIGURATION,
        )
    return match[1]


class Token:
    """The header that says who we are; no call waits for it but the first.

    A refresh that fails is not tried again before a pause, which grows; meanwhile each call hears
    what was said. A token that the service refuses is dropped, and the next call fetches another.
    """

    def __init__(self, credentials: Any, clock_ms: Callable[[], int] = since_boot_ms) -> None:
        import google.auth.transport.requests  # noqa: PLC0415 - an emulator needs none of it

        self._credentials = credentials
        self._request = google.auth.transport.requests.Request()
        self._fetching = asyncio.Lock()
        self._headers: Headers = ()
        self._token: Any = None  # of which they were made
        self._older: list[str] = []
        self._clock_ms = clock_ms
        self._error: Exception | None = None  # of the last refresh
        self._pause_ms = FIRST_PAUSE_MS
        self._again_at_ms = 0
        self._is_proven = True  # or it came in place of one that was refused

    async def headers(self) -> Headers:
        """Return the headers of a call. Raises ProviderError."""
        if self._is_current():
            return self._headers
        if self._is_stale() and self._fetching.locked():
            return self._headers  # it is good for minutes yet, and somebody is at it
        async with self._fetching:
            if not self._is_current():
                await self._fetch()
        return self._headers

    def accepted(self) -> None:
        """Take note that the service takes the token."""
        self._is_proven = True

    def drop(self, refused: Headers) -> bool:
        """Drop a token that the service has refused; tell whether another is worth a try.

        It is not where the refused one came in place of another that was refused.
        """
        if refused != self._headers:
            return True  # an older one: another call has dropped it
        if not self._is_proven or self._credentials.expiry is None:
            return False  # a key never ends, and there is no other
        self._is_proven = False
        self._headers = ()
        self._credentials.token = None
        return True

    def secrets(self) -> list[str]:
        """Return what no reason may have in it."""
        return [str(self._token), *self._older]

    def _is_current(self) -> bool:
        # A thread may have fetched a token and not yet made a header of it.
        made_of_it = self._headers and self._token is self._credentials.token
        return bool(made_of_it) and self._credentials.token_state is TokenState.FRESH

    def _is_stale(self) -> bool:
        return bool(self._headers) and self._credentials.token_state is TokenState.STALE

    async def _fetch(self) -> None:
        if self._error is None or self._clock_ms() >= self._again_at_ms:
            await self._try_to_fetch()
        if self._error is None or self._is_stale():
            return  # where it is stale, it will do until a later call tries again
        told = _no_token(self._error)
        if told.outcome is Outcome.UNAVAILABLE:
            told.retry_after_ms = max(0, self._again_at_ms - self._clock_ms())
        raise told from None  # what it says besides may be secret

    async def _try_to_fetch(self) -> None:
        try:
            await asyncio.to_thread(self._refresh)
        except Exception as error:  # noqa: BLE001 - a token server may say anything
            self._error = error
            self._again_at_ms = self._clock_ms() + self._pause_ms
            self._pause_ms = min(2 * self._pause_ms, LONGEST_PAUSE_MS)
        else:
            self._error, self._pause_ms = None, FIRST_PAUSE_MS

    def _refresh(self) -> None:
        if self._credentials.token_state is not TokenState.FRESH:
            self._credentials.refresh(self._bounded)
        token, headers = self._credentials.token, dict[str, str]()
        self._credentials.apply(headers)  # also the project that pays, where one is set
        self._headers = tuple((name.lower(), value) for name, value in headers.items())
        if self._token is not None:
            self._older = [str(self._token)]  # calls that are out were sent with it
        self._token = token

    def _bounded(self, *args: Any, **kwargs: Any) -> Any:
        return self._request(*args, **{**kwargs, "timeout": TOKEN_TIMEOUT_S})


def _host(location: str) -> str:
    if location == "global":
        return "aiplatform.googleapis.com:443"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com:443"
    return f"{location}-aiplatform.googleapis.com:443"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_token(error: Exception) -> ProviderError:
    if not isinstance(error, GoogleAuthError):
        return ProviderError(Outcome.UNAVAILABLE, "no token: the token server's answer is none")
    away = isinstance(error, TransportError) or error.retryable
    outcome = Outcome.UNAVAILABLE if away else Outcome.DENIED
    # Only the first: others have the whole answer. What a server may echo of us is long.
    said = SECRET.sub("...", " ".join(str(error.args[0] if error.args else "").split()))
    return ProviderError(outcome, f"no token: {said}"[:REASON_LENGTH])


def _no_credentials(error: Exception) -> CrawlerError:
    if isinstance(error, GoogleAuthError):
        cause = ": ".join(map(str, error.args))
    elif isinstance(error, OSError):
        cause = str(error)
    else:
        cause = "the file of the credentials is of no kind that is known"
    return CrawlerError(
        "there are no credentials for Google Cloud",
        " ".join(cause.split())[:REASON_LENGTH],
        "gcloud auth application-default login, or"
        " export GOOGLE_APPLICATION_CREDENTIALS=/path/to/key.json;"
        " to try it without an account: crawler emulator",
        Exit.DENIED,
    )
