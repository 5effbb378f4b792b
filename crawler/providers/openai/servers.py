"""The servers that are known by a name, and what is odd about each: a table.

Rule: pure. A name stands on record, an address never: that is NAME_BASE_URL in the environment, or
the one in the table. Whoever is not in the table becomes a provider by such a variable.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from crawler.errors import CrawlerError, Exit
from crawler.providers.proxy import is_address, is_here

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_VERSION = re.compile(r"/v[0-9]\w*(/|$)")
_CALLS = ("/chat/completions", "/completions")


class Server(NamedTuple):
    """What is known of a server beforehand.

    Attributes:
        base_url: its address; "" for one that differs from account to account.
        key_header: where it wants its key.
        variables: what else it is sent, as a header, where one of these variables is set.
        lists_all: its list of models has every name that a call may use.
        deployments: a model is a part of the path, unless the address names a version.
        google: its address follows from a project of Google Cloud, and its key is a token of
            Google's that ends after an hour.

    """

    base_url: str = ""
    key_header: str = "Authorization"
    variables: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    lists_all: bool = True
    deployments: bool = False
    google: bool = False


SERVERS: Mapping[str, Server] = MappingProxyType(
    {
        "openai": Server(
            "https://api.openai.com/v1",
            variables={
                "OpenAI-Organization": ("OPENAI_ORG_ID",),
                "OpenAI-Project": ("OPENAI_PROJECT", "OPENAI_PROJECT_ID"),
            },
        ),
        "groq": Server("https://api.groq.com/openai/v1"),
        "openrouter": Server("https://openrouter.ai/api/v1"),
        "mistral": Server("https://api.mistral.ai/v1"),
        "deepseek": Server("https://api.deepseek.com/v1"),
        "together": Server("https://api.together.xyz/v1", lists_all=False),
        "azure": Server(key_header="api-key", lists_all=False, deployments=True),
        "gemini": Server("https://generativelanguage.googleapis.com/v1beta/openai"),
        "vertex-openai": Server(lists_all=False, google=True),
    }
)
_OTHER = Server()


class Address(NamedTuple):
    """Where a server is.

    Attributes:
        bases: addresses to try in turn, where the one that is given does not say its version.
        query: what follows a path, with its question mark.

    """

    bases: tuple[str, ...]
    query: str = ""


def server_of(name: str) -> Server:
    """Return what is known of a server."""
    return SERVERS.get(name, _OTHER)


def variable(name: str, what: str) -> str:
    """Return the name of a variable: ``GROQ_API_KEY`` of ``groq`` and ``API_KEY``."""
    return f"{name.upper().replace('-', '_')}_{what}"


def is_server(name: str, environ: Mapping[str, str]) -> bool:
    """Tell whether a name is a server's: one of the table, or one with an address."""
    return name in SERVERS or bool(
        _NAME.fullmatch(name) and environ.get(variable(name, "BASE_URL"))
    )


def set_up(environ: Mapping[str, str]) -> list[str]:
    """Return the servers that the environment has an address or a key for."""
    suffix = "_BASE_URL"
    others = {one.removesuffix(suffix).lower() for one in environ if one.endswith(suffix)}
    kinds = ("BASE_URL", "API_KEY", "API_KEY_FILE", "API_KEY_COMMAND")
    return [
        name
        for name in (*SERVERS, *sorted(others - SERVERS.keys()))
        if is_server(name, environ) and any(environ.get(variable(name, kind)) for kind in kinds)
    ]


def no_provider(name: str, known: list[str]) -> CrawlerError:
    """Return the error for a name that is no provider's."""
    import difflib  # noqa: PLC0415 - for this error alone

    near = difflib.get_close_matches(name.lower(), known, 2)
    nearest = f"; the nearest: {', '.join(near)}" if near else ""
    if _NAME.fullmatch(name):
        address = f"{variable(name, 'BASE_URL')}=http://127.0.0.1:8000/v1"
        hint = f"export {address} makes it the name of an OpenAI-compatible server"
    else:
        hint = (
            "a name of your own has small letters, digits, - and _: see crawler prompt add --help"
        )
    return CrawlerError(
        f"there is no provider {name!r}",
        f"the providers are {', '.join(known)}, and any NAME with NAME_BASE_URL{nearest}",
        hint,
        Exit.USAGE,
    )


def address_of(name: str, model: str, environ: Mapping[str, str]) -> Address:
    """Return where a server is. Raises CrawlerError."""
    server, named = server_of(name), variable(name, "BASE_URL")
    given = environ.get(named, "").strip() or server.base_url
    if server.google and not given:
        given = _google_address(environ)
    if not is_address(given) or urlsplit(given).fragment:
        raise CrawlerError(
            f"{named} is no address" if given else f"there is no address for {name}",
            "it must look like https://host/v1, or http://127.0.0.1:8080/v1 for a local server"
            if given
            else f"{named} is not set",
            f"export {named}=http://127.0.0.1:8080/v1, with the host and the port of yours",
            Exit.CONFIGURATION,
        )
    parts = urlsplit(given)
    path = parts.path.rstrip("/")
    for call in _CALLS:
        path = path.removesuffix(call).rstrip("/")
    root = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    query = f"?{parts.query}" if parts.query else ""
    paths = _paths(server, model, path, query)
    return Address(tuple(dict.fromkeys(f"{root}{one}" for one in paths)), query)


def _google_address(environ: Mapping[str, str]) -> str:
    """Return where a project's open models are. Raises CrawlerError."""
    project = environ.get("GOOGLE_CLOUD_PROJECT", "").strip()
    if not project:
        raise CrawlerError(
            "the Google Cloud project is not known",
            "GOOGLE_CLOUD_PROJECT is not set",
            "export GOOGLE_CLOUD_PROJECT=your-project",
            Exit.CONFIGURATION,
        )
    location = environ.get("GOOGLE_CLOUD_LOCATION", "").strip() or "global"
    region = "" if location == "global" else f"{location}-"
    where = f"projects/{quote(project, safe=':')}/locations/{quote(location)}"
    return f"https://{region}aiplatform.googleapis.com/v1/{where}/endpoints/openapi"


def _paths(server: Server, model: str, path: str, query: str) -> list[str]:
    """Return the paths that an address may mean, the likeliest first."""
    if server.deployments and "/deployments/" not in path and not _VERSION.search(path):
        path = path.removesuffix("/openai")
        deployment = f"{path}/openai/deployments/{model}"
        return [deployment if "api-version=" in query else f"{path}/openai/v1"]
    if server.deployments or _VERSION.search(path):
        return [path]
    if path:
        return [path, f"{path}/v1"]
    known = urlsplit(server.base_url).path
    return [known or "/v1", "/v1", ""]


def exposed_to(name: str, environ: Mapping[str, str]) -> str:
    """Return the host that gets a key in plain text, over the network; else nothing."""
    parts = urlsplit(environ.get(variable(name, "BASE_URL"), ""))
    keys = [environ.get(variable(name, f"API_KEY{kind}")) for kind in ("", "_FILE", "_COMMAND")]
    sent = any(keys) or parts.username or parts.password
    host = parts.hostname or ""
    return host if sent and parts.scheme == "http" and not is_here(host) else ""


def secrets_in(url: str) -> list[str]:
    """Return what of an address may be a secret: user, password, the values of its query.

    User and password also in the form in which they are sent in a header.
    """
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    found = [value for key, _, value in pairs if key != "api-version"]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user or password:
        sent = b64encode(f"{user}:{password}".encode()).decode().rstrip("=")
        found += [parts.username or "", parts.password or "", sent]
    return [form for one in found if one for form in {one, unquote(one)}]


def with_variables(text: str, provider: str) -> str:
    """Return a hint with the variables of a provider in it; without any where it has none."""
    if provider in ("vertex", "local", "scripted", "function"):
        return re.sub(r" \(NAME_[^)]*\)", "", text)
    return text.replace("NAME_", variable(provider or "openai", ""))
