"""Servers that write each byte of a response themselves, and an authority to sign for them."""

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


async def request(reader):
    """Return head and body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"]
    return head, await reader.readexactly(int(length[0]) if length else 0)


@asynccontextmanager
async def raw_server(handle, tls=None):
    """Serve on a loopback port; yield it. `handle(reader, writer)` is called for a connection."""
    tasks = []

    async def handled(reader, writer):
        tasks.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()

    server = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=tls, backlog=1_000)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def replying(*written):
    """Return a handler that writes the same after each request; it closes after the first."""

    async def handle(reader, writer):
        await request(reader)
        for piece in written:
            writer.write(piece)
        await writer.drain()

    return handle


def signed_server(folder, *names):
    """Write the certificate of a new authority; return its path and a server's TLS settings."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of this test")])
    pem = _certificate(authority, authority, authority_key.public_key(), authority_key, ())
    (folder / "authority.pem").write_bytes(pem)
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of this test")])
    own = _certificate(server, authority, key.public_key(), authority_key, names)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(own + private)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    return folder / "authority.pem", tls


def _certificate(subject, issuer, public_key, signing_key, names):
    now = datetime.now(UTC)
    alternatives = [
        x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        for name in names
    ]
    builder = (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signing_key, hashes.SHA256()).public_bytes(Encoding.PEM)
