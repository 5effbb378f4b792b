"""The way to Vertex AI: names and hosts, what the environment says, tokens of a real token server,
and calls over TLS. The keys and certificates are made here."""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import traceback
import urllib.parse
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth.credentials import TokenState
from google.oauth2 import service_account
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.emulator.server import serve
from crawler.emulator.settings import Settings
from crawler.errors import CrawlerError, Exit
from crawler.protocol import ProviderError
from crawler.providers.openai.servers import address_of
from crawler.providers.vertex import access, messages
from crawler.providers.vertex.access import (
    SCOPES,
    Access,
    Token,
    find_access,
    location_of,
    require_loopback,
    resource_name,
)
from crawler.providers.vertex.service import connect
from tests.program import crawler, rows
from tests.providers.grpc_server import grpc_serving
from tests.providers.test_servers import played
from tests.providers.vertex_call import CALL

MODEL = "gemini-2.5-flash"
GLOBAL = f"projects/p/locations/global/publishers/google/models/{MODEL}"


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


@pytest.mark.parametrize(
    ("model", "resource"),
    [
        ("gemini-2.5-flash", "projects/p/locations/l/publishers/google/models/gemini-2.5-flash"),
        ("meta/llama-4", "projects/p/locations/l/publishers/meta/models/llama-4"),
        (
            "publishers/meta/models/llama-4",
            "projects/p/locations/l/publishers/meta/models/llama-4",
        ),
        ("endpoints/123", "projects/p/locations/l/endpoints/123"),
        ("models/123@2", "projects/p/locations/l/models/123@2"),
        ("projects/q/locations/eu/endpoints/1", "projects/q/locations/eu/endpoints/1"),
    ],
)
def test_a_model_has_one_full_name(model, resource):
    assert resource_name(model, "p", "l") == resource


letters = st.text(alphabet="abc019-.@_", min_size=1)


@given(model=letters, project=letters, location=st.text(alphabet="abz019-", min_size=1))
def test_the_location_in_a_full_name_is_the_one_it_was_made_of(model, project, location):
    resource = resource_name(model, project, location)
    assert location_of(resource) == location
    assert resource_name(resource, "other", "elsewhere") == resource


@pytest.mark.parametrize(
    "resource",
    [
        "projects/p",
        "projects/p/locations/l",
        "projects/p/locations/l/",
        "projects//locations/l/endpoints/1",
        "projects/p/locations//endpoints/1",
        "projects/p/locations/evil.com/endpoints/1",
        "projects/p/locations/EU/endpoints/1",
        "projects/a/b/locations/l/endpoints/1",
        "x/projects/p/locations/l/endpoints/1",
    ],
)
def test_what_is_no_full_name_is_refused(resource):
    with pytest.raises(CrawlerError) as error:
        location_of(resource)
    assert error.value.exit_code == Exit.CONFIGURATION
    assert repr(resource) in error.value.what


@given(st.text())
@example("evil.com/")
@example("evil.com#")
@example("x@evil.com:80")
def test_no_location_leads_anywhere_else(location):
    try:
        found = location_of(f"projects/p/locations/{location}/endpoints/1")
    except CrawlerError:
        return
    host, port = access._host(found).split(":")
    assert host.endswith(".googleapis.com")
    assert port == "443"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.0.0.1:65535", "127.9.9.9:80", "localhost:8080", "[::1]:8080"],
)
def test_an_emulator_may_be_on_this_machine(address):
    require_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8:80",
        "0.0.0.0:80",
        "127.0.0.1.evil.com:80",
        "localhost.evil.com:80",
        "evil.com:80",
        "localhost@evil.com:80",
        "evil.com@localhost:80",
        "user:secret@127.0.0.1:80",
        "127.0.0.1:80@evil.com",
        "127.0.0.1:80/evil.com:80",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:",
        "127.0.0.1",
        "localhost",
        ":80",
        "",
        "80",
        "[::]:80",
        "[::2]:80",
        "[2001:db8::1]:80",
        "::1:8080",  # another machine's address, to gRPC
        "::1",
        "[::1]",
        "[127.0.0.1:80",
        "127.0.0.1]:80",
        "[localhost]:80",
        "2130706433:80",
        "0x7f.1:80",
        "127.1:80",
        "127.0.0.1:８０",
        "dns:///localhost:80",
        "dns://evil.com/localhost:80",
        "unix:/tmp/socket",
        "http://localhost:80",
        "localhost:80 ",
        "localhost:80\n",
        "localhost :80",
        "evil.com:80,127.0.0.1:80",
    ],
)
def test_an_emulator_is_nowhere_else(address):
    with pytest.raises(CrawlerError) as error:
        require_loopback(address)
    assert error.value.exit_code == Exit.CONFIGURATION
    assert "VERTEX_EMULATOR_HOST" in error.value.hint


@given(st.text(alphabet="127.0:[]localhost@/e-% ", max_size=30))
def test_an_address_that_is_let_in_is_one_host_and_one_port(address):
    try:
        require_loopback(address)
    except CrawlerError:
        return
    host, _, port = address.rpartition(":")
    assert port.isdecimal()
    assert host in ("localhost", "[::1]") or host.startswith(("127.", "[0", "[:"))


@pytest.fixture(scope="module")
def private_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Take all credentials of this machine out of the environment."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "CLOUDSDK_", "GCLOUD_", "VERTEX_", "GCE_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "CLOUDSDK_CONFIG", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def use_key(monkeypatch, tmp_path, private_key):
    """Return a function that makes a service account's key the way in."""

    def used(token_uri="http://127.0.0.1:1/token", **facts):
        path = tmp_path / "key.json"
        info = {
            "type": "service_account",
            "client_email": "crawler@keys-project.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": private_key,
            "project_id": "keys-project",
            "token_uri": token_uri,
        }
        path.write_text(json.dumps({**info, **facts}), "utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        return path

    return used


def denied():
    with pytest.raises(CrawlerError) as error:
        find_access(MODEL)
    assert error.value.exit_code == Exit.DENIED
    assert "gcloud auth application-default login" in error.value.hint
    assert "GOOGLE_APPLICATION_CREDENTIALS=" in error.value.hint
    assert "crawler emulator" in error.value.hint
    assert len(str(error.value).splitlines()) == 3
    return error.value


def test_without_credentials_both_ways_to_them_are_named():
    assert denied().what == "there are no credentials for Google Cloud"


def test_a_key_file_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "away.json"))
    assert "away.json was not found" in denied().cause


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"{}",
        b'{"type": "service_account"}',
        b'{"type": "nonsense"}',
        b'{"type": []}',
        b'{"type": "authorized_user"}',
        b'{"type": "external_account"}',
    ],
)
def test_a_key_file_that_is_none_is_told(monkeypatch, tmp_path, content):
    path = tmp_path / "key.json"
    path.write_bytes(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    cause = denied().cause
    assert not cause.startswith("(")
    assert "attribute" not in cause


@pytest.mark.parametrize("facts", [{"private_key": "none"}, {"private_key": 5}, {"type": 5}])
def test_a_key_that_cannot_be_used_is_told(use_key, facts):
    use_key(**facts)
    denied()


def test_a_key_that_is_cut_off_is_not_shown(use_key, private_key):
    use_key(private_key=private_key[:900])
    shown = str(denied())
    assert not any(line in shown for line in private_key.splitlines())


def test_a_folder_is_no_key_file(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    denied()


def test_the_keys_project_is_used_unless_another_is_named(use_key, monkeypatch):
    use_key()
    found = find_access(MODEL)
    assert found.target == "aiplatform.googleapis.com:443"
    assert found.resource == resource_name(MODEL, "keys-project", "global")
    assert found.credentials.scopes == SCOPES
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", " another ")
    assert find_access(MODEL).resource == resource_name(MODEL, "another", "global")
    whole = "projects/q/locations/us-central1/endpoints/1"
    assert find_access(whole)[:2] == ("us-central1-aiplatform.googleapis.com:443", whole)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("", "aiplatform.googleapis.com:443"),
        (" global ", "aiplatform.googleapis.com:443"),
        ("us", "aiplatform.us.rep.googleapis.com:443"),
        ("eu", "aiplatform.eu.rep.googleapis.com:443"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com:443"),
    ],
)
def test_each_location_has_its_host(use_key, monkeypatch, location, target):
    use_key()
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
    found = find_access(MODEL)
    assert found.target == target
    assert location_of(found.resource) == (location.strip() or "global")


@pytest.mark.parametrize("location", ["evil.com/", "Europe-West4"])
def test_a_location_that_is_none_is_refused_by_the_name_of_its_variable(
    use_key, monkeypatch, location
):
    use_key()
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
    with pytest.raises(CrawlerError, match="GOOGLE_CLOUD_LOCATION") as error:
        find_access(MODEL)
    assert location in error.value.cause
    assert error.value.exit_code == Exit.CONFIGURATION
    assert find_access(GLOBAL).resource == GLOBAL, "a full name says itself where it is"


def test_without_a_project_only_a_full_name_will_do(use_key):
    use_key(project_id=None)
    with pytest.raises(CrawlerError) as error:
        find_access(MODEL)
    assert error.value.exit_code == Exit.CONFIGURATION
    assert error.value.what == "the Google Cloud project is not known"
    assert find_access(GLOBAL).resource == GLOBAL


def test_an_emulator_needs_no_credentials_and_no_project(monkeypatch):
    monkeypatch.setenv("VERTEX_EMULATOR_HOST", " localhost:8080 ")
    emulated = resource_name(MODEL, "emulated", "global")
    assert find_access(MODEL) == Access("localhost:8080", emulated, None)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    assert find_access(MODEL).resource == GLOBAL
    monkeypatch.setenv("VERTEX_EMULATOR_HOST", "evil.com:8080")
    with pytest.raises(CrawlerError):
        find_access(MODEL)


def test_an_emulator_is_connected_to_in_plain_text_and_streams(monkeypatch):
    async def check():
        async with serve(Settings()) as emulator:
            monkeypatch.setenv("VERTEX_EMULATOR_HOST", emulator.endpoint)
            async with connect(MODEL) as provider:
                answer = await provider.generate(CALL)
                assert "revoke formally" in answer.text
                for method, pieces in (("stream", 4), ("predict", 0)):  # that comes as a whole
                    told = []
                    call = CALL._replace(params={"method": method})
                    streamed = await provider.stream(call, told.append)
                    assert len(told) == pieces
                    assert "".join(told).strip() == (streamed.text if pieces else "")
                assert emulator.tally.codes == {"OK": 3}

    run(check())


@pytest.mark.parametrize(
    ("named", "target"),
    [
        ("example.org", "example.org:443"),
        ("https://example.org/", "example.org:443"),
        (" localhost:8443 ", "localhost:8443"),
        ("[::1]:8443", "[::1]:8443"),
        (
            "12.us-central1-3.prediction.vertexai.goog",
            "12.us-central1-3.prediction.vertexai.goog:443",
        ),
    ],
)
def test_any_host_can_be_named(use_key, monkeypatch, named, target):
    use_key()
    monkeypatch.setenv("VERTEX_ENDPOINT", named)
    found = find_access("endpoints/12")
    assert found[:2] == (target, "projects/keys-project/locations/global/endpoints/12")
    assert found.credentials is not None


@pytest.mark.parametrize(
    "named",
    [
        "http://example.org",
        "a.org/v1",
        "user@a.org",
        "a.org:0",
        "a.org:65536",
        "a.org:x",
        "a b",
        "/",
    ],
)
def test_an_endpoint_that_is_no_host_is_refused(use_key, monkeypatch, named):
    use_key()
    monkeypatch.setenv("VERTEX_ENDPOINT", named)
    with pytest.raises(CrawlerError, match="VERTEX_ENDPOINT"):
        find_access(MODEL)


def test_a_key_takes_the_place_of_a_project(monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
    found = find_access(MODEL)
    assert found[:2] == ("aiplatform.googleapis.com:443", f"publishers/google/models/{MODEL}")
    assert find_access("publishers/meta/models/m").resource == "publishers/meta/models/m"
    assert find_access("meta/m").resource == "publishers/meta/models/m"
    assert run(Token(found.credentials).headers()) == (("x-goog-api-key", "a-key"),)
    with pytest.raises(CrawlerError, match="needs a project"):
        find_access("endpoints/1")
    monkeypatch.setenv("GOOGLE_API_KEY", "a\nkey")
    with pytest.raises(CrawlerError, match="GOOGLE_API_KEY is no key") as error:
        find_access(MODEL)
    assert "a\nkey" not in str(error.value)


def test_where_a_project_is_named_the_key_is_not_used(use_key, monkeypatch):
    use_key()
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    assert find_access(MODEL).resource == GLOBAL


class TokenServer:
    """A token server on loopback. ``reply()`` gives a status and a body; by default a new token
    each time, good for an hour."""

    def __init__(self):
        self.assertions = []
        self.reply = self.token
        self.arrived = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.uri = ""

    def token(self):
        return 200, {"access_token": f"token-{len(self.assertions)}", "expires_in": 3600}

    @property
    def requests(self):
        return len(self.assertions)


@contextmanager
def token_server():
    found = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.assertions.append(urllib.parse.parse_qs(form)["assertion"][0])
            found.arrived.set()
            assert found.go_on.wait(20)
            status, body = found.reply()
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.uri = f"http://127.0.0.1:{server.server_port}/token"
        try:
            yield found
        finally:
            found.go_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def tokens():
    with token_server() as server:
        yield server


@pytest.fixture
def credentials(tokens, use_key):
    use_key(tokens.uri)
    return find_access(MODEL).credentials


def test_open_models_are_asked_with_a_token_that_is_renewed(tokens, use_key, tmp_path, monkeypatch):
    use_key(tokens.uri)
    accepted = {"Bearer token-1"}
    path = tmp_path / "c.db"
    with played(keys=accepted) as server:
        usual = server.reply

        def reply(*asked):
            if len(server.posts()) == 4:  # an hour has passed
                accepted.clear()
                accepted.add("Bearer token-2")
            return usual(*asked)

        server.reply = reply
        monkeypatch.setenv("VERTEX_OPENAI_BASE_URL", f"{server.at}/v1")
        model = ("--provider", "vertex-openai", "--model", "meta/llama-maas")
        do = partial(crawler, "--db", path)
        assert do("prompt", "add", "p", "--template", "Define {word}.", *model).code == Exit.DONE
        assert do("add", *(f"word{n}" for n in range(9)), "--prompt", "p").code == Exit.DONE
        assert do("run", "--concurrency", "2").code == Exit.DONE
    assert len(tokens.assertions) == 2
    assert rows(path, "SELECT count(*), sum(model = 'meta/llama-maas') FROM results") == [(9, 9)]


def test_the_address_of_open_models_follows_from_the_project():
    def bases(**environ):
        return address_of("vertex-openai", "m", environ).bases

    where = "aiplatform.googleapis.com/v1/projects/p/locations"
    assert bases(GOOGLE_CLOUD_PROJECT="p") == (f"https://{where}/global/endpoints/openapi",)
    assert bases(GOOGLE_CLOUD_PROJECT="p", GOOGLE_CLOUD_LOCATION="us-central1") == (
        f"https://us-central1-{where}/us-central1/endpoints/openapi",
    )
    with pytest.raises(CrawlerError, match="project is not known"):
        bases()


def bearing(number):
    return (("authorization", f"Bearer token-{number}"),)


def ends_in(credentials, seconds):
    """Make a token older than it is."""
    credentials.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)


def test_many_calls_at_once_fetch_one_token(tokens, credentials):
    async def check():
        token = Token(credentials)
        found = await asyncio.gather(*[token.headers() for _ in range(200)])
        assert set(found) == {bearing(1)}
        assert await token.headers() == bearing(1)
        assert tokens.requests == 1

    run(check())


def test_the_project_that_pays_is_named(tokens, use_key, monkeypatch):
    use_key(tokens.uri)
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    found = run(Token(find_access(MODEL).credentials).headers())
    assert found == (*bearing(1), ("x-goog-user-project", "payer"))


def test_a_token_that_ends_soon_is_fetched_ahead_and_others_need_not_wait(tokens, credentials):
    async def check():
        token = Token(credentials)
        await token.headers()
        ends_in(credentials, 60)
        assert credentials.token_state is TokenState.STALE
        tokens.arrived.clear()
        tokens.go_on.clear()
        first = asyncio.create_task(token.headers())
        await asyncio.to_thread(tokens.arrived.wait, 10)
        others = await asyncio.gather(*[token.headers() for _ in range(50)])
        assert set(others) == {bearing(1)}
        assert not first.done()
        tokens.go_on.set()
        assert await first == bearing(2)
        assert await token.headers() == bearing(2)
        assert tokens.requests == 2

    run(check())


def test_a_token_that_has_ended_is_waited_for_by_all(tokens, credentials):
    async def check():
        token = Token(credentials)
        await token.headers()
        ends_in(credentials, -1)
        assert credentials.token_state is TokenState.INVALID
        tokens.arrived.clear()
        tokens.go_on.clear()
        waiting = [asyncio.create_task(token.headers()) for _ in range(50)]
        await asyncio.to_thread(tokens.arrived.wait, 10)
        assert not any(task.done() for task in waiting)
        tokens.go_on.set()
        assert set(await asyncio.gather(*waiting)) == {bearing(2)}
        assert tokens.requests == 2

    run(check())


class HeldCredentials(service_account.Credentials):
    """Credentials that stop between a new token and its header."""

    held = None

    def apply(self, headers, token=None):
        if self.held is not None:
            self.held.set()
            assert self.go_on.wait(10)
        super().apply(headers, token)


def test_a_header_is_never_that_of_the_token_before(tokens, use_key):
    credentials = HeldCredentials.from_service_account_file(use_key(tokens.uri), scopes=SCOPES)

    async def check():
        token = Token(credentials)
        await token.headers()
        ends_in(credentials, -1)
        credentials.held, credentials.go_on = threading.Event(), threading.Event()
        first = asyncio.create_task(token.headers())
        await asyncio.to_thread(credentials.held.wait, 10)
        assert credentials.token_state is TokenState.FRESH
        second = asyncio.create_task(token.headers())
        await asyncio.sleep(0)  # it begins
        credentials.go_on.set()
        assert await first == await second == bearing(2)

    run(check())


def test_whoever_gives_up_waiting_leaves_no_token_behind(tokens, credentials):
    async def check():
        token = Token(credentials)
        tokens.go_on.clear()
        first = asyncio.create_task(token.headers())
        await asyncio.to_thread(tokens.arrived.wait, 10)
        second = asyncio.create_task(token.headers())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        tokens.go_on.set()
        assert dict(await second)["authorization"].startswith("Bearer token-")

    run(check())


async def refused(token):
    with pytest.raises(ProviderError) as caught:
        await token.headers()
    error = caught.value
    assert len(error.reason.splitlines()) == 1
    assert len(error.reason) <= 300
    assert error.reason.startswith("no token: ")
    return error


INVALID_GRANT = {"error": "invalid_grant", "error_description": "Invalid JWT\n Signature."}


def test_a_key_that_is_refused_is_denied(tokens, credentials):
    tokens.reply = lambda: (400, INVALID_GRANT)
    error = run(refused(Token(credentials)))
    assert error.outcome == "denied"
    assert error.reason == "no token: invalid_grant: Invalid JWT Signature."
    assert tokens.requests == 1


def test_whoever_is_denied_hears_of_it_before_anything_is_asked(tokens, use_key):
    use_key(tokens.uri)
    tokens.reply = lambda: (400, INVALID_GRANT)

    async def check():
        with pytest.raises(ProviderError, match="invalid_grant"):
            async with connect(MODEL):
                raise AssertionError("there is nobody to ask")

    run(check())


def test_a_token_server_that_is_away_is_nobody_there(use_key):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        use_key(f"http://127.0.0.1:{bound.getsockname()[1]}/token")
        error = run(refused(Token(find_access(MODEL).credentials)))
    assert error.outcome == "unavailable"


def test_a_token_server_that_never_answers_is_nobody_there(tokens, credentials, monkeypatch):
    monkeypatch.setattr(access, "TOKEN_TIMEOUT_S", 0.2)
    tokens.go_on.clear()
    error = run(refused(Token(credentials)))
    assert error.outcome == "unavailable"
    assert "read timeout=0.2" in error.reason
    assert tokens.requests == 1


def test_a_token_server_that_is_ill_is_nobody_there(use_key):
    """The library tries three times; those of this test wait at the same time."""
    replies = [
        (503, b"busy"),
        (500, {"error": "internal_failure"}),
        (429, {}),
        (400, {"error": "temporarily_unavailable"}),
    ]

    async def check(servers):
        found = []
        for server, reply in zip(servers, replies, strict=True):
            server.reply = lambda reply=reply: reply
            use_key(server.uri)
            found.append(find_access(MODEL).credentials)
        errors = await asyncio.gather(*[refused(Token(one)) for one in found])
        assert [error.outcome for error in errors] == ["unavailable"] * len(replies)

    with token_server() as a, token_server() as b, token_server() as c, token_server() as d:
        run(check([a, b, c, d]))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in</html>",
        b"\xff",
        b"",
        [],
        "text",
        5,
        None,
        {"access_token": "x", "expires_in": "soon"},
        {"access_token": "x", "expires_in": 10**30},
        {"access_token": "x", "expires_in": []},
    ],
)
def test_an_answer_that_is_no_token_is_nobody_there(tokens, credentials, body):
    tokens.reply = lambda: (200, body)
    assert run(refused(Token(credentials))).outcome == "unavailable"


@pytest.mark.parametrize("body", [{}, {"access_token": 5}, {"access_token": None}])
def test_an_answer_without_a_token_is_denied(tokens, credentials, body):
    tokens.reply = lambda: (200, body)
    assert run(refused(Token(credentials))).outcome == "denied"


def a_minute_each():
    """Return a clock that goes on by a minute whenever it is read."""
    return itertools.count(0, 60_000).__next__


@pytest.mark.parametrize("seconds", [60, -1])  # stale, and over
def test_between_tries_to_fetch_a_token_there_is_a_pause_that_grows(tokens, credentials, seconds):
    now_ms = 0

    async def check():
        nonlocal now_ms
        token = Token(credentials, lambda: now_ms)
        await token.headers()
        tokens.reply = lambda: (400, {"error": "temporarily_unavailable"})
        ends_in(credentials, seconds)
        tried = []
        for _ in range(150):
            before = tokens.requests
            await asyncio.gather(*(token.headers() for _ in range(5)), return_exceptions=True)
            if tokens.requests > before:
                tried.append(now_ms)
            now_ms += 1_000
        assert tried == [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 123_000]
        if seconds < 0:
            error = await refused(token)
            assert (error.outcome, error.retry_after_ms) == ("unavailable", 183_000 - now_ms)
        tokens.reply = tokens.token
        now_ms = 183_000
        assert dict(await token.headers())["authorization"] == f"Bearer token-{tokens.requests}"

    monkeypatched = pytest.MonkeyPatch()
    monkeypatched.setattr("google.auth._exponential_backoff.time.sleep", lambda seconds: None)
    with monkeypatched.context():
        run(check())
    monkeypatched.undo()


@pytest.mark.parametrize("reply", [(400, INVALID_GRANT), (200, b"<html>"), (200, {})])
def test_a_token_that_is_good_for_a_while_is_used_when_no_new_one_comes(tokens, credentials, reply):
    async def check():
        token = Token(credentials, a_minute_each())
        await token.headers()
        tokens.reply = lambda: reply
        ends_in(credentials, 60)
        assert await token.headers() == bearing(1)
        assert await token.headers() == bearing(1)
        assert tokens.requests == 3  # each tried
        ends_in(credentials, -1)
        await refused(token)
        tokens.reply = tokens.token
        assert await token.headers() == bearing(5)

    run(check())


def shown(error):
    """Return all that is printed of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_no_error_shows_a_key_or_a_token(tokens, credentials, private_key):
    other = "eyJhbGciOiJSUzI1NiJ9." + "x" * 100

    async def check():
        token = Token(credentials, a_minute_each())
        await token.headers()
        for reply in (
            lambda: (400, {"error": "invalid_grant", "error_description": tokens.assertions[-1]}),
            lambda: (400, f"bad assertion={tokens.assertions[-1]}".encode()),
            lambda: (400, {"assertion": tokens.assertions[-1]}),
            lambda: (200, {"id_token": other}),
            lambda: (200, {"access_token": 5, "id_token": other}),
        ):
            tokens.reply = reply
            ends_in(credentials, -1)
            error = shown(await refused(token))
            assert "no token: " in error
            assert tokens.assertions[-1][:30] not in error
            assert other[:30] not in error
            assert "token-1" not in error
            assert not any(line in error for line in private_key.splitlines())

    run(check())


def certificate(key):
    """Return a certificate of localhost that whoever has it trusts."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@asynccontextmanager
async def tls_server(private_key, certificate_pem, refused=()):
    """Serve Vertex AI's methods over TLS; yield the port and the list of what came."""
    came = []

    async def seen(name, context):
        came.append((name, dict(context.invocation_metadata())))
        if came[-1][1].get("authorization") in refused:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")

    def answer():
        response = messages.GenerateContentResponse()
        response.candidates.add(finish_reason=1).content.parts.add(text="To repeal.")
        return response.SerializeToString()

    async def generate(body, context):
        await seen("GenerateContent", context)
        return answer()

    async def stream(body, context):
        await seen("StreamGenerateContent", context)
        yield answer()

    async def predict(body, context):
        await seen("Predict", context)
        response = messages.PredictResponse()
        response.predictions.add().struct_value.fields["content"].string_value = "To repeal."
        return response.SerializeToString()

    handlers = {
        "GenerateContent": grpc.unary_unary_rpc_method_handler(generate),
        "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(stream),
        "Predict": grpc.unary_unary_rpc_method_handler(predict),
    }
    handler = grpc.method_handlers_generic_handler(messages.SERVICE, handlers)
    tls = grpc.ssl_server_credentials([(private_key.encode(), certificate_pem)])
    async with grpc_serving(handler, "localhost:0", tls) as port:
        yield port, came


# In a process of its own: gRPC reads its roots once, at the first connection.
CLIENT = """
import asyncio, datetime, json, sys
from crawler.protocol import Call, ProviderError
from crawler.providers.vertex.access import Token, find_access
from crawler.providers.vertex.channels import opened
from crawler.providers.vertex.service import Service

def call(**params):
    return Call(1, 1, "abrogate", "vertex", "m", "Define abrogate.", "", params, 10_000)

async def main(port):
    found = find_access("gemini-2.5-flash")
    token = Token(found.credentials)
    said = []
    for host in ("localhost", "127.0.0.1"):
        target = f"{host}:{port}"
        async with opened(target, encrypted=True) as channels:
            service = Service("m", found._replace(target=target), channels, token)
            try:
                for params in ({}, {"method": "stream"}, {"method": "predict"}):
                    said.append((await service.generate(call(**params))).text)
                found.credentials.expiry = datetime.datetime(2000, 1, 1)
                said.append((await service.generate(call(request_type="flex"))).text)
            except ProviderError as error:
                said.append(error.outcome)
    print(json.dumps(said))

asyncio.run(main(sys.argv[1]))
"""


def test_calls_go_out_encrypted_with_a_token_and_once(
    tokens, use_key, private_key, tmp_path, monkeypatch
):
    key = serialization.load_pem_private_key(private_key.encode(), None)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(certificate(key))
    use_key(tokens.uri)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(roots))
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")

    async def check():
        async with tls_server(private_key, roots.read_bytes()) as (port, came):
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, str(port)), stdout=subprocess.PIPE
            )
            out, _ = await client.communicate()
            assert client.returncode == 0
            # The certificate is localhost's, and nobody else's.
            assert json.loads(out) == ["To repeal."] * 4 + ["unavailable"]
            return came

    came = run(check())
    assert [name for name, _ in came] == [
        "GenerateContent",
        "StreamGenerateContent",
        "Predict",
        "GenerateContent",
    ]
    bearers = [metadata["authorization"] for _, metadata in came]
    assert bearers == ["Bearer token-1"] * 3 + ["Bearer token-2"]
    resource = urllib.parse.quote(resource_name(MODEL, "keys-project", "global"), safe="")
    asked = [metadata["x-goog-request-params"] for _, metadata in came]
    assert asked == [f"{field}={resource}" for field in ("model", "model", "endpoint", "model")]
    assert {metadata["x-goog-user-project"] for _, metadata in came} == {"payer"}
    tiers = [metadata.get("x-vertex-ai-llm-shared-request-type") for _, metadata in came]
    assert tiers == [None, None, None, "flex"]
    assert tokens.requests == 2


REFUSED_CLIENT = """
import asyncio, json, sys
from crawler.protocol import Call, ProviderError
from crawler.providers.vertex.access import Token, find_access
from crawler.providers.vertex.channels import opened
from crawler.providers.vertex.service import Service

CALL = Call(1, 1, "abrogate", "vertex", "m", "Define abrogate.", "", {}, 10_000)

async def main(port):
    found = find_access("gemini-2.5-flash")
    target = f"localhost:{port}"
    async with opened(target, encrypted=True) as channels:
        service = Service("m", found._replace(target=target), channels, Token(found.credentials))
        async def one():
            try:
                return (await service.generate(CALL)).text
            except ProviderError as error:
                return error.outcome, error.kind, error.status_code
        said = [await asyncio.gather(one(), one(), one()), await one(), await one()]
    print(json.dumps(said))

asyncio.run(main(sys.argv[1]))
"""
NEW_TOKEN = ["interrupted", "credentials", 401]


@pytest.mark.parametrize(
    ("refused_tokens", "after", "fetched"),
    [
        # Who was in flight with the token that is dropped does not pay for it, either.
        ([1], ["To repeal."] * 2, 2),
        # The second in its place is refused as well: then the credentials are in doubt.
        ([1, 2], [["denied", "credentials", 401]] * 2, 2),
    ],
)
def test_a_refused_token_is_fetched_anew_once(
    tokens, use_key, private_key, tmp_path, monkeypatch, refused_tokens, after, fetched
):
    key = serialization.load_pem_private_key(private_key.encode(), None)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(certificate(key))
    use_key(tokens.uri)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(roots))

    async def check():
        bearers = [f"Bearer token-{number}" for number in refused_tokens]
        async with tls_server(private_key, roots.read_bytes(), bearers) as (port, _):
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", REFUSED_CLIENT, str(port)), stdout=subprocess.PIPE
            )
            out, _ = await client.communicate()
            assert client.returncode == 0
            return json.loads(out)

    assert run(check()) == [[NEW_TOKEN] * 3, *after]
    assert tokens.requests == fetched


ENDPOINT_CLIENT = """
import asyncio, os
from crawler.protocol import Call, ProviderError
from crawler.providers.vertex.service import connect

CALL = Call(1, 1, "abrogate", "vertex", "m", "Define abrogate.", "", {}, 10_000)

async def main():
    async with connect("gemini-2.5-flash") as service:
        try:
            print((await service.generate(CALL)).text)
        except ProviderError as error:
            print(error.outcome, error.reason)

asyncio.run(main())
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_another_host_is_spoken_to_encrypted_with_a_key_and_nothing_else_is_on_standard_error(
    private_key, tmp_path, monkeypatch, trusted
):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(certificate(serialization.load_pem_private_key(private_key.encode(), None)))
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))

    async def check():
        async with tls_server(private_key, roots.read_bytes()) as (port, came):
            monkeypatch.setenv("VERTEX_ENDPOINT", f"localhost:{port}")
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", ENDPOINT_CLIENT),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await client.communicate()
            assert (client.returncode, err.decode()) == (0, "")
            return out.decode(), came

    out, came = run(check())
    if not trusted:
        assert out.startswith("unavailable")
        assert came == []
        return
    assert out == "To repeal.\n"
    [(_, metadata)] = came
    assert metadata["x-goog-api-key"] == "a-key"
    assert "authorization" not in metadata
    name = urllib.parse.quote(f"publishers/google/models/{MODEL}", safe="")
    assert metadata["x-goog-request-params"] == f"model={name}"


def test_a_file_of_certificates_that_is_none_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "away.pem"))

    async def check():
        with pytest.raises(CrawlerError, match="SSL_CERT_FILE"):
            async with connect(MODEL):
                raise AssertionError("there is nobody to ask")

    run(check())
