"""The proxy that the environment names, and what is told of it."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from crawler.errors import CrawlerError, Exit
from crawler.protocol import Call, ProviderError
from crawler.providers.openai.service import connect
from crawler.providers.proxy import proxy_for
from tests.program import crawler, rows
from tests.providers.raw_server import raw_server, request, signed_server

CALL = Call(1, 1, "word", "openai", "m", "Define word.", "", {}, 10_000)
BODY = b'{"choices": [{"message": {"content": "An answer."}, "finish_reason": "stop"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PROXY = "http://proxy.test:3128"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-nobody")


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("http://api.test", {}, None),
        ("http://api.test", {"http_proxy": PROXY}, PROXY),
        ("http://api.test", {"HTTP_PROXY": f" {PROXY} "}, PROXY),
        ("http://api.test", {"HTTP_PROXY": PROXY, "http_proxy": ""}, None),
        ("http://api.test", {"HTTP_PROXY": "http://other.test", "http_proxy": PROXY}, PROXY),
        ("http://api.test", {"https_proxy": PROXY}, None),
        ("https://api.test", {"https_proxy": PROXY, "http_proxy": "http://other.test"}, PROXY),
        (
            "https://api.test",
            {"HTTPS_PROXY": "https://me:pw@proxy.test"},
            "https://me:pw@proxy.test",
        ),
        ("https://api.test", {"ALL_PROXY": PROXY}, None),
    ],
)
def test_a_proxy_is_named_by_the_scheme_of_the_server(url, environ, proxy):
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9:8080", "[::1]", "localhost", "LocalHost."]
)
@pytest.mark.parametrize("proxy", [PROXY, "socks5://proxy.test", "proxy.test:3128"])
def test_what_stays_on_this_machine_goes_through_none(host, proxy):
    assert proxy_for(f"http://{host}/v1", {"http_proxy": proxy}) is None


@pytest.mark.parametrize(
    ("host", "no_proxy", "excepted"),
    [
        ("api.test", "*", True),
        ("10.1.2.3", "other.test, *", True),
        ("api.test", "api.test", True),
        ("API.test.", "api.TEST", True),
        ("v1.api.test", "api.test", True),
        ("v1.api.test", ".api.test", True),
        ("v1.api.test", "*.api.test", True),
        ("myapi.test", "api.test", False),
        ("api.test", "a.test,b.test  c.test", False),
        ("api.test", "", False),
        ("api.test", ",", False),
        ("api.test", ".", False),
        ("api.test:8080", "api.test:8080", True),
        ("api.test:8080", "api.test:80", False),
        ("api.test", "api.test:80", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.4/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3:8000", "10.1.2.3:8000", True),
        ("10.1.2.3:8000", "10.1.2.3:8001", False),
        ("110.1.2.3", "10.1.2.3", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("[fd00::1]:81", "[fd00::1]:81", True),
        ("[fd00::1]:81", "[fd00::1]:80", False),
        ("[fd00::1]", "10.0.0.0/8", False),
        ("[::ffff:10.1.2.3]", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.0/33", False),
        ("10.1.2.3", "test", False),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_some_servers_are_excepted(host, no_proxy, excepted, name):
    found = proxy_for(f"http://{host}/v1", {"http_proxy": PROXY, name: no_proxy})
    assert (found is None) is excepted


@pytest.mark.parametrize(
    "proxy",
    [
        *("socks5://me:secret@p.test", "ftp://p.test", "p.test:3128", "p.test", "//p.test"),
        *("http://", "http://[", "http://p.test:x", "http://p.test:0"),
        *("http://p q.test", "http://p\n.test"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_and_not_repeated(proxy):
    with pytest.raises(CrawlerError) as caught:
        proxy_for("http://api.test", {"http_proxy": proxy})
    assert caught.value.exit_code == Exit.CONFIGURATION
    assert "p.test" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("http_proxy", "socks5://proxy.test:1080", Exit.CONFIGURATION),
        ("OPENAI_API_KEY", "sk-one\nsk-two", Exit.DENIED),
        ("OPENAI_API_KEY", "sk-“quoted”", Exit.DENIED),
    ],
)
def test_what_cannot_be_sent_ends_the_run_and_charges_no_word(
    tmp_path, monkeypatch, variable, value, code
):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.test/v1")
    monkeypatch.setenv(variable, value)
    db = tmp_path / "x.db"
    options = ["--template", "{word}", "--provider", "openai", "--model", "m"]
    assert crawler("--db", db, "prompt", "add", "p", *options).code == Exit.DONE
    assert crawler("--db", db, "add", "cat", "--prompt", "p").code == Exit.DONE
    ran = crawler("--db", db, "run")
    assert ran.code == code
    assert "sk-" not in ran.err
    assert rows(db, "SELECT count(*) FROM attempts") == [(0,)]
    assert rows(db, "SELECT state FROM requests") == [("pending",)]


@asynccontextmanager
async def at(base_url, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    async with connect("m") as provider:
        yield provider


def forwarding(heads, answer):
    """Return a handler for a proxy that answers for the servers that it alone knows."""

    async def handle(reader, writer):
        heads.append((await request(reader))[0].decode().lower())
        writer.write(answer)

    return handle


def test_a_name_that_only_the_proxy_knows_is_reached_through_it(monkeypatch):
    heads = []

    async def once():
        async with raw_server(forwarding(heads, ANSWER)) as port:
            monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
            async with at("http://api.test/v1", monkeypatch) as provider:
                return await provider.generate(CALL)

    assert asyncio.run(once()).text == "An answer."
    [head] = heads
    assert head.startswith("post http://api.test/v1/chat/completions http/1.1\r\n")
    assert "proxy-authorization: basic bwu6cebzcw==\r\n" in head  # me:p@ss
    assert "\r\nauthorization: bearer a-key-for-nobody\r\n" in head


def test_what_is_encrypted_is_so_from_end_to_end(tmp_path, monkeypatch):
    heads = []
    authority, tls = signed_server(tmp_path, "api.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async def copy(reader, writer):
        while content := await reader.read(65_536):
            writer.write(content)
        writer.write_eof()

    async def once():
        async with raw_server(forwarding(seen, ANSWER), tls) as server:

            async def handle(reader, writer):
                heads.append((await request(reader))[0].decode().lower())
                its_reader, its_writer = await asyncio.open_connection("127.0.0.1", server)
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                try:
                    await asyncio.gather(copy(reader, its_writer), copy(its_reader, writer))
                finally:
                    its_writer.close()

            async with raw_server(handle) as port:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
                async with at("https://api.test/v1", monkeypatch) as provider:
                    return await provider.generate(CALL)

    seen = []
    assert asyncio.run(once()).text == "An answer."
    assert [head.partition("\r\n")[0] for head in heads] == ["connect api.test:443 http/1.1"]
    assert "a-key-for-nobody" not in heads[0]
    assert "authorization: bearer a-key-for-nobody" in seen[0]


def refused(answer, base_url, monkeypatch):
    async def once():
        async with raw_server(forwarding([], answer)) as port:
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"http://me:proxy-password@127.0.0.1:{port}")
            async with at(base_url, monkeypatch) as provider:
                await provider.generate(CALL)

    with pytest.raises(ProviderError) as caught:
        asyncio.run(once())
    return caught.value


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_says_so_itself(monkeypatch, scheme):
    answer = b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n"
    error = refused(answer, f"{scheme}://api.test/v1", monkeypatch)
    assert (error.outcome, error.status_code) == ("denied", 407)
    assert error.reason.startswith("the proxy wants a user and a password")


def test_a_proxy_that_does_not_lead_there_is_nobody_there(monkeypatch):
    answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    error = refused(answer, "https://api.test/v1", monkeypatch)
    assert error.outcome == "unavailable"
    assert error.reason == "cannot connect: the proxy does not lead to the server"


def test_the_password_of_a_proxy_is_in_no_reason(monkeypatch):
    page = b"you are me:proxy-password or bWU6cHJveHktcGFzc3dvcmQ="
    answer = b"HTTP/1.1 502 Bad\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    reason = refused(answer, "http://api.test/v1", monkeypatch).reason
    assert "you are me" in reason
    assert "password" not in reason
    assert "bWU6cHJveHk" not in reason


@pytest.mark.parametrize("key", ["", "a-key-for-nobody"])
def test_neither_a_proxy_nor_netrc_decides_about_a_server_on_this_machine(
    tmp_path, monkeypatch, key
):
    heads = []
    (tmp_path / ".netrc").write_text("default login me password netrc-secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", key)

    async def once():
        async with (
            raw_server(forwarding(heads, ANSWER)) as port,
            at(f"http://127.0.0.1:{port}/v1", monkeypatch) as provider,
        ):
            return await provider.generate(CALL)

    assert asyncio.run(once()).text == "An answer."
    assert ("authorization" in heads[0]) is bool(key)
    assert "basic" not in heads[0]


def test_a_user_in_the_address_is_sent_and_not_with_a_key(monkeypatch):
    heads = []

    async def once():
        async with (
            raw_server(forwarding(heads, ANSWER)) as port,
            at(f"http://me:p%40ss@127.0.0.1:{port}/v1", monkeypatch) as provider,
        ):
            await provider.generate(CALL)

    with pytest.raises(CrawlerError, match="only one of") as caught:
        asyncio.run(once())
    assert caught.value.exit_code == Exit.DENIED
    monkeypatch.delenv("OPENAI_API_KEY")
    asyncio.run(once())
    assert "authorization: basic bwu6cebzcw==\r\n" in heads[0]
