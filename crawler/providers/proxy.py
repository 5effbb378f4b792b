"""Which proxy leads to a server, read from HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

Rule: pure. In lower case a variable comes before itself in upper case, as for curl. What stays on
this machine goes through no proxy, and no address of a proxy is in an error: it may hold a
password.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from crawler.errors import CrawlerError, Exit

_PORTS = {"http": 80, "https": 443}
_WITH_PORT = re.compile(r"(?:\[(.+)\]|([^:]+)):([0-9]+)")


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the address of the proxy for a server, None if there is none. Raises CrawlerError."""
    server = urlsplit(url)
    host, port = (server.hostname or "").rstrip("."), server.port or _PORTS[server.scheme]
    proxy = _setting(environ, f"{server.scheme}_proxy")
    if not proxy or is_here(host) or _is_excepted(host, port, _setting(environ, "no_proxy")):
        return None
    if not is_address(proxy):
        raise CrawlerError(
            "the proxy can't be used",
            f"{server.scheme}_proxy holds no address that begins with http:// or https://",
            f"export {server.scheme}_proxy=http://host:port, or no_proxy=… if none is needed",
            Exit.CONFIGURATION,
        )
    return proxy


def _setting(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, environ.get(name.upper(), "")).strip()


def is_address(url: str) -> bool:
    """Tell whether something can be sent to an address over HTTP."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and parts.scheme in _PORTS and url.isprintable() and " " not in url


def is_here(host: str) -> bool:
    """Tell whether a host is this machine."""
    address = _address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    entries = no_proxy.lower().replace(",", " ").split()
    return any(_matches(entry, host, port) for entry in entries)


def _matches(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry means a server: a domain, an address or a network, and any port."""
    with_port = _WITH_PORT.fullmatch(entry)
    if with_port:
        if int(with_port[3]) != port:
            return False
        entry = with_port[1] or with_port[2]
    address = _address(host)
    if address is not None and entry != "*":
        return _contains(entry.strip("[]"), address)
    domain = entry.removeprefix("*").strip(".")
    return entry == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))


def _contains(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
