"""HTTP as servers speak it: odd, broken, endless, late, or an answer that nobody asked for."""

import asyncio
import gzip
import os
import socket
import sys
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from crawler.errors import CrawlerError, Exit
from crawler.protocol import ProviderError
from crawler.providers.http_client import MOST_BYTES, BrokenConnectionError, connected
from tests.providers.raw_server import raw_server, replying, request, signed_server

OK = b"HTTP/1.1 200 OK\r\n"
SEVEN = b"Content-Length: 7\r\n"
BODY = b'{"a":1}'
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def ask(client, port, body=b"{}", timeout_ms=10_000):
    headers = {"Authorization": "Bearer key"}
    url = f"http://127.0.0.1:{port}/v1"
    async with client.post(url, body, timeout_ms, headers) as response:
        return response.status, await response.body()


async def asked(handle, **more):
    async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
        return await ask(client, port, **more)


@pytest.mark.parametrize(
    "written",
    {
        "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        "a body until the connection is closed": OK + b"\r\n" + BODY,
        "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 7\nX: y\n\n" + BODY,
        "no reason phrase": b"HTTP/1.1 200\r\n" + SEVEN + b"\r\n" + BODY,
        "a folded header": OK + b"X: a\r\n\tb\r\n" + SEVEN + b"\r\n" + BODY,
        "a header of 64 kB": OK + b"X: " + b"a" * 65_000 + b"\r\n" + SEVEN + b"\r\n" + BODY,
        "100 headers": OK
        + b"".join(b"X-%d: y\r\n" % n for n in range(99))
        + SEVEN
        + b"\r\n"
        + BODY,
        "a reason in UTF-8": "HTTP/1.1 200 Хорошо\r\n".encode() + SEVEN + b"\r\n" + BODY,
        "a header in Latin-1": OK + b"X: \xe9\r\n" + SEVEN + b"\r\n" + BODY,
        "an early hint": b"HTTP/1.1 103 Hint\r\nX: y\r\n\r\n" + OK + SEVEN + b"\r\n" + BODY,
        "chunks and trailers": CHUNKED + b"7;x=y\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_odd_and_clear_is_read(written):
    assert asyncio.run(asked(replying(written[1]))) == (200, BODY)


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        (b"", "connection closed before message completed"),
        (OK + b"X: ", "connection closed before message completed"),
        (b"Bearer sk-1234567890\r\n\r\n", "invalid HTTP version parsed"),
        (OK + b"Set-Cookie: \0sk-1234567890\r\n\r\n", "invalid HTTP header parsed"),
        (OK + b"no colon here\r\n\r\n", "invalid HTTP header parsed"),
        (OK + SEVEN + b"Content-Length: 6\r\n\r\n" + BODY, "invalid content-length parsed"),
        (OK + SEVEN + b"\r\n" + BODY[:-1], "end of file before message length reached"),
        (CHUNKED + b"7\r\n" + BODY + b"\r\n", "unexpected EOF during chunk size line"),
        (CHUNKED + b"zz\r\n" + BODY + b"\r\n", "Invalid chunk size line: missing size digit"),
        (OK + b"Content-Encoding: gzip\r\n" + SEVEN + b"\r\n" + BODY, "Invalid gzip header"),
    ],
)
def test_what_is_broken_is_told_in_one_sentence_without_what_the_server_sent(written, cause):
    with pytest.raises(BrokenConnectionError) as caught:
        asyncio.run(asked(replying(written)))
    assert caught.value.outcome == "transient"
    assert caught.value.reason == f"the connection broke: {cause}"


def test_the_case_of_a_header_is_nothing_and_what_is_not_ascii_is_left_out():
    async def heads():
        head = OK + b"RETRY-after: 7\r\nX: \xe9\r\nContent-Type: Text/Event-Stream; charset=x\r\n"
        async with (
            raw_server(replying(head + SEVEN + b"\r\n" + BODY)) as port,
            connected("http://127.0.0.1") as client,
            client.post(f"http://127.0.0.1:{port}", b"", 10_000) as response,
        ):
            return response.headers, response.content_type

    headers, content_type = asyncio.run(heads())
    assert headers["Retry-After"] == headers["retry-after"] == "7"
    assert "X" not in headers
    assert content_type == "text/event-stream"


def test_a_connection_is_kept_and_no_cookie_is():
    heads, connections = [], []

    async def handle(reader, writer):
        connections.append(writer)
        while True:
            heads.append((await request(reader))[0].lower())
            writer.write(OK + b"Set-Cookie: a=b; Path=/\r\n" + SEVEN + b"\r\n" + BODY)

    async def twice():
        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
            return await ask(client, port), await ask(client, port)

    assert asyncio.run(twice()) == ((200, BODY), (200, BODY))
    assert (len(heads), len(connections)) == (2, 1)
    for head in heads:
        assert b"authorization: bearer key\r\n" in head
        assert b"cookie" not in head


def brotli(content):
    """Put it into the format as it is."""
    return (((len(content) - 1) << 4) | (1 << 20)).to_bytes(3, "little") + content + b"\x03"


def zstd(content):
    """Put it into the format as it is."""
    size, block = bytes([len(content)]), ((len(content) << 3) | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x20" + size + block + content


CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli, "zstd": zstd}


def test_what_is_accepted_can_be_read():
    async def handle(reader, writer):
        head, coding = await request(reader)
        [line] = [line for line in head.lower().split(b"\r\n") if b"accept-encoding" in line]
        assert {name.strip() for name in line.decode()[16:].split(",")} == CODINGS.keys()
        body = CODINGS[coding.decode()](BODY)
        writer.write(OK + b"Content-Encoding: " + coding + b"\r\nConnection: close\r\n\r\n" + body)

    for coding in CODINGS:
        assert asyncio.run(asked(handle, body=coding.encode())) == (200, BODY), coding


async def until_closed(reader):
    """Wait until the other side closes a connection, whether politely or not."""
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        pass


def closing(*written, forever=b""):
    """Return a handler that writes and then waits, and an event for the end of its connection."""
    closed = asyncio.Event()

    async def handle(reader, writer):
        await request(reader)
        for piece in written:
            writer.write(piece)
        try:
            while forever:
                writer.write(forever)
                await writer.drain()
            await until_closed(reader)
        except ConnectionError:
            pass
        closed.set()

    return handle, closed


async def failed(written, timeout_ms, forever=b""):
    """Make a call that fails, and wait until its connection is closed while the client lives."""
    handle, closed = closing(*written, forever=forever)
    async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
        with pytest.raises(ProviderError) as caught:
            await ask(client, port, timeout_ms=timeout_ms)
        await asyncio.wait_for(closed.wait(), 10)
    return caught.value


def test_an_endless_answer_is_not_read_to_its_end():
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    error = asyncio.run(failed([CHUNKED], 60_000, forever=chunk))
    assert (error.outcome, error.reason) == ("rejected", "the answer is longer than 32 MiB")


def test_a_small_body_that_would_be_a_large_one_is_not_read_to_its_end():
    bomb = gzip.compress(bytes(MOST_BYTES + 1))
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with pytest.raises(ProviderError) as caught:
        asyncio.run(asked(replying(head + bomb)))
    assert caught.value.reason == "the answer is longer than 32 MiB"


@pytest.mark.parametrize("written", [b"", OK, OK + SEVEN + b"\r\n" + BODY[:-1]])
def test_a_call_whose_time_is_up_ends_and_frees_its_connection(written):
    error = asyncio.run(failed([written], 60))
    assert isinstance(error, BrokenConnectionError)
    assert (error.outcome, error.reason) == ("transient", "no answer within 0.06 s")


def test_a_stream_that_is_given_up_frees_its_connection_at_once():
    async def given_up():
        handle, closed = closing(CHUNKED + b"7\r\n" + BODY + b"\r\n")
        begun = asyncio.Event()

        async def follow(client, port):
            url = f"http://127.0.0.1:{port}"
            async with client.post(url, b"", 60_000, in_pieces=True) as response:
                assert await response.read() == BODY
                begun.set()
                await response.read()

        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
            task = asyncio.create_task(follow(client, port))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await asyncio.wait_for(closed.wait(), 10)

    asyncio.run(given_up())


def whole(body):
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_second_response_in_the_wake_of_the_first_is_nobodys():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        while True:
            _, word = await request(reader)
            writer.write(whole(word) + whole(b"stray"))

    async def crowd():
        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:

            async def work(words):
                for word in words:
                    assert await ask(client, port, b"%d" % word) == (200, b"%d" % word)

            await asyncio.gather(*(work(range(n, 100, 10)) for n in range(10)))

    asyncio.run(crowd())
    assert len(connections) == 100


def test_a_connection_on_which_something_waits_is_closed_and_another_is_opened():
    async def waiting():
        connections, closed = [], asyncio.Event()

        async def handle(reader, writer):
            connections.append(writer)
            _, word = await request(reader)
            writer.write(whole(word))
            if len(connections) == 1:
                await answered.wait()
                writer.write(whole(b"stray"))
                await until_closed(reader)
                closed.set()

        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
            answered = asyncio.Event()
            assert await ask(client, port, b"first") == (200, b"first")
            answered.set()
            await asyncio.wait_for(closed.wait(), 10)
            assert await ask(client, port, b"second") == (200, b"second")
        assert len(connections) == 2

    asyncio.run(waiting())


def test_as_many_calls_as_are_made_are_in_flight_at_once():
    many = 300

    async def crowd():
        arrived, everybody = [], asyncio.Event()

        async def handle(reader, writer):
            await request(reader)
            arrived.append(writer)
            if len(arrived) == many:
                everybody.set()
            await everybody.wait()
            writer.write(whole(BODY))

        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
            answers = await asyncio.gather(*(ask(client, port) for _ in range(many)))
        assert answers == [(200, BODY)] * many

    asyncio.run(crowd())


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_system_asks_whether_the_other_side_is_still_there():
    def kept_alive(port):
        """Tell of our sockets that are connected to a port whether they are kept alive."""
        for path in Path("/proc/self/fd").iterdir():
            with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as one:
                if one.family == socket.AF_INET and one.getpeername()[1] == port:
                    yield one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    async def look():
        handle, _ = closing(OK + SEVEN + b"\r\n" + BODY)
        async with raw_server(handle) as port, connected("http://127.0.0.1") as client:
            await ask(client, port)
            return list(kept_alive(port))

    assert asyncio.run(look()) == [1]


async def ask_encrypted(tls, behind=None):
    """Ask a server that encrypts, or one behind it that does not."""
    async with raw_server(replying(whole(BODY)), tls) as port:
        there = f"https://127.0.0.1:{port}"
        url, proxy = (behind, there) if behind else (there, None)
        async with connected(url, proxy) as client, client.post(url, b"", 10_000) as response:
            return await response.body()


@pytest.mark.parametrize("behind", [None, "http://api.test"])
def test_an_authority_of_ones_own_is_trusted_where_it_is_named(tmp_path, monkeypatch, behind):
    authority, tls = signed_server(tmp_path, "127.0.0.1")
    with pytest.raises(ProviderError, match=r"cannot connect: the authority .* is not known") as no:
        asyncio.run(ask_encrypted(tls, behind))
    assert (no.value.outcome, no.value.kind) == ("refused", "certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert asyncio.run(ask_encrypted(tls, behind)) == BODY


def test_a_certificate_for_another_name_is_none(tmp_path, monkeypatch):
    authority, tls = signed_server(tmp_path, "api.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with pytest.raises(ProviderError, match=r"cannot connect: .*not valid for name"):
        asyncio.run(ask_encrypted(tls))


@pytest.mark.parametrize(
    ("written", "scheme"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "http"),
        (b"220 mail ESMTP\r\n", "http"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "http"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "https"),
    ],
)
def test_a_port_where_another_protocol_is_spoken_is_a_wrong_address(written, scheme):
    async def handle(reader, writer):
        await reader.read(1)
        writer.write(written)
        await writer.drain()

    async def once(served_before):
        async with raw_server(handle) as port:
            url = f"{scheme}://127.0.0.1:{port}"
            async with (
                connected(url) as client,
                client.post(url, b"{}", 10_000, served_before=served_before),
            ):
                pass

    with pytest.raises(ProviderError) as caught:
        asyncio.run(once(served_before=False))
    assert (caught.value.outcome, caught.value.kind) == ("refused", "configuration")
    if scheme == "http":  # it has spoken HTTP before: one connection broke
        with pytest.raises(BrokenConnectionError):
            asyncio.run(once(served_before=True))


@pytest.mark.parametrize(
    "content", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"]
)
def test_authorities_that_are_none_are_told_before_anything_is_sent(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "authorities.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))

    async def connect(url):
        async with connected(url):
            pass

    with pytest.raises(CrawlerError) as caught:
        asyncio.run(connect("https://api.test"))
    assert caught.value.exit_code == Exit.CONFIGURATION
    asyncio.run(connect("http://api.test"))  # nobody needs them


def test_a_client_is_closed_when_its_thread_has_come_back_from_python():
    """An interpreter that ends before aborts, with a code of its own and a dump of its threads."""
    held, left = threading.Event(), threading.Event()

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args, **more):
            handle = super().call_soon_threadsafe(*args, **more)
            held.wait(0.05)
            left.set()
            return handle

    async def once():
        async with raw_server(replying(whole(BODY))) as port:
            async with connected("http://127.0.0.1") as client:
                assert await ask(client, port) == (200, BODY)
                left_early = left.is_set()
            return left_early, left.is_set()

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(once()) == (False, True)
