"""Every way that a call to Vertex AI can fail, made by real servers on this machine: what it says
of the attempt, and that each attempt is one request."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from crawler.protocol import ProviderError
from crawler.providers.vertex import messages, refusal
from crawler.providers.vertex.access import Access
from crawler.providers.vertex.channels import LARGEST_ANSWER, MOST_REFUSED, opened
from crawler.providers.vertex.service import Service
from crawler.run.executor import LocalExecutor
from tests.providers.grpc_server import grpc_serving
from tests.providers.vertex_call import CALL

RESOURCE = "projects/p/locations/l/publishers/google/models/m"
METHODS = ("generate", "stream", "predict")


def by(method, call=CALL):
    return call._replace(params={"method": method})


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Seen:
    """What a server has seen: its address, and how many requests came."""

    target = ""
    requests = 0


@asynccontextmanager
async def grpc_server(answer, target="127.0.0.1:0"):
    """Serve Vertex AI's methods: each request is counted and given to ``answer(context)``."""
    seen = Seen()

    async def unary(body, context):
        seen.requests += 1
        return await answer(context)

    async def stream(body, context):
        yield await unary(body, context)

    handlers = {
        "GenerateContent": grpc.unary_unary_rpc_method_handler(unary),
        "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(stream),
        "Predict": grpc.unary_unary_rpc_method_handler(unary),
    }
    handler = grpc.method_handlers_generic_handler(messages.SERVICE, handlers)
    async with grpc_serving(handler, target) as port:
        seen.target = f"127.0.0.1:{port}"
        yield seen


@asynccontextmanager
async def socket_server(connected):
    """Serve with ``connected(reader, writer, seen)`` for each connection."""
    seen = Seen()
    tasks = set()

    async def each(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await connected(reader, writer, seen)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(each, "127.0.0.1", 0)
    seen.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


SETTINGS, PING, HEADERS, DATA, RST_STREAM, GOAWAY = 4, 6, 1, 0, 3, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
PREFACE_LENGTH = 24


def frame(kind, flags=0, stream=0, payload=b""):
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def headers(stream, *fields, end=False):
    """Return a frame of headers, literally (RFC 7541, section 6.2.2)."""
    block = b"".join(
        b"\x00" + b"".join(bytes([len(part)]) + part.encode() for part in field) for field in fields
    )
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


GRPC = ((":status", "200"), ("content-type", "application/grpc"))


def http2_server(reply):
    """Serve HTTP/2 by hand: each request gets the bytes that ``reply(stream)`` returns."""
    return http2_server_that(lambda writer, stream: writer.write(reply(stream)))


def http2_server_that(act):
    """Serve HTTP/2 by hand: at each request ``act(writer, stream)`` is called."""

    async def connected(reader, writer, seen):
        await reader.readexactly(PREFACE_LENGTH)
        writer.write(frame(SETTINGS))
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind in (SETTINGS, PING) and not flags & ACK:
                writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == HEADERS:
                seen.requests += 1
            elif kind == DATA and flags & END_STREAM:
                act(writer, stream)

    return socket_server(connected)


async def asked(target, call=CALL):
    async with opened(target, encrypted=False) as channels:
        return await Service("m", Access(target, RESOURCE, None), channels, None).generate(call)


async def failed(target, call=CALL):
    with pytest.raises(ProviderError) as caught:
        await asked(target, call)
    error = caught.value
    assert error.reason.isprintable()
    assert len(error.reason) <= 300
    assert call.prompt not in error.reason
    return error


def refused(server, call=CALL):
    """Make a call to a server that fails it, and return its error; it was one request."""

    async def once():
        async with server as seen:
            error = await failed(seen.target, call)
            assert seen.requests == 1
            return error

    return run(once())


def aborting(name, message="because\n of\tthis", *details):
    """Return a server that ends each call with a status."""
    status = status_pb2.Status(code=grpc.StatusCode[name].value[0], message=message)
    for detail in details:
        if isinstance(detail, any_pb2.Any):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return aborting_with(name, message, status.SerializeToString() if details else None)


def aborting_with(name, message, brought):
    metadata = () if brought is None else (("grpc-status-details-bin", brought),)

    async def answer(context):
        await context.abort(grpc.StatusCode[name], message, metadata)

    return grpc_server(answer)


def retry_info(seconds=0, nanos=0):
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    return info


STATUSES = {
    "CANCELLED": ("transient", 499),
    "UNKNOWN": ("transient", 500),
    "INVALID_ARGUMENT": ("refused", 400),
    "DEADLINE_EXCEEDED": ("transient", 504),
    "NOT_FOUND": ("refused", 404),
    "ALREADY_EXISTS": ("transient", 409),
    "PERMISSION_DENIED": ("denied", 403),
    "RESOURCE_EXHAUSTED": ("throttled", 429),
    "FAILED_PRECONDITION": ("refused", 400),
    "ABORTED": ("transient", 409),
    "OUT_OF_RANGE": ("refused", 400),
    "UNIMPLEMENTED": ("refused", 501),
    "INTERNAL": ("transient", 500),
    "UNAVAILABLE": ("transient", 503),
    "DATA_LOSS": ("transient", 500),
    "UNAUTHENTICATED": ("denied", 401),
}


def test_the_table_has_every_status():
    assert {*STATUSES, "OK"} == set(grpc.StatusCode.__members__)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", STATUSES)
def test_every_status_is_one_outcome(name, method):
    error = refused(aborting(name), by(method))
    assert (error.outcome, error.status_code) == STATUSES[name]
    assert error.reason == f"{name}: because of this"
    assert error.retry_after_ms is None
    assert error.answer is None


def test_a_long_message_is_cut():
    assert refused(aborting("INTERNAL", "x" * 1_000)).reason == f"INTERNAL: {'x' * 290}"


QUOTA = error_details_pb2.QuotaFailure()
BROKEN_RETRY_INFO = any_pb2.Any(
    type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a\xff"
)
NO_TYPE = any_pb2.Any(type_url="nonsense", value=b"\xff")


@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
@pytest.mark.parametrize(
    ("details", "pause_ms"),
    [
        ([retry_info(7)], 7_000),
        ([retry_info(1, 500_000_000)], 1_500),
        ([retry_info(0, 2_000_000)], 2),
        ([QUOTA, NO_TYPE, retry_info(7)], 7_000),
        ([retry_info(3), retry_info(7)], 3_000),
        ([retry_info(0)], None),  # no advice: our own backoff holds
        ([retry_info(0, 400)], None),
        ([retry_info(-5)], None),
        ([error_details_pb2.RetryInfo()], None),
        ([QUOTA], None),
        ([BROKEN_RETRY_INFO], None),
        ([NO_TYPE], None),
    ],
)
def test_a_server_says_when_to_come_back(name, details, pause_ms):
    assert refused(aborting(name, "busy", *details)).retry_after_ms == pause_ms


@pytest.mark.parametrize("brought", [b"", b"\xff", b"\x1a\xff\xff\xff\xff\x0f", b"text"])
def test_details_that_are_garbage_are_no_advice(brought):
    error = refused(aborting_with("RESOURCE_EXHAUSTED", "busy", brought))
    assert (error.outcome, error.retry_after_ms) == ("throttled", None)


@pytest.mark.parametrize(
    "message",
    [
        "Quota exceeded for aiplatform.googleapis.com/requests_per_day_per_project",
        "Quota exceeded for quota metric 'Requests' and limit 'RequestsPerDayPerProject'",
        "You may ask 100 times per day.",
    ],
)
def test_a_quota_of_the_day_is_told_as_one(message):
    error = refused(aborting("RESOURCE_EXHAUSTED", message))
    assert (error.outcome, error.daily, error.retry_after_ms) == ("throttled", True, None)
    told = refused(aborting("RESOURCE_EXHAUSTED", message, retry_info(60)))
    # What passes within minutes is no day, and stands there for the minute.
    assert (told.daily, told.retry_after_ms) == (True, None)
    told = refused(aborting("RESOURCE_EXHAUSTED", message, retry_info(7 * 3600)))
    assert (told.daily, told.retry_after_ms) == (True, 25_200_000)
    assert not refused(aborting("INTERNAL", message)).daily


def test_a_quota_of_the_day_may_be_named_beside_the_message():
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(subject="s", description="GenerateRequestsPerDayPerProjectPerModel")
    told = refused(aborting("RESOURCE_EXHAUSTED", "Exhausted.", failure, retry_info(36)))
    assert (told.daily, told.kind) == (True, "throttled_day")


def test_a_quota_of_the_minute_is_not_one_of_the_day():
    message = "Quota exceeded for generate_content_requests_per_minute_per_project"
    assert not refused(aborting("RESOURCE_EXHAUSTED", message)).daily


@pytest.mark.parametrize(
    ("metadata", "outcome", "kind"),
    [
        ({"quota_limit": "GenerateContentRequestsPerDayPerProject"}, "throttled", "throttled_day"),
        ({"quota_limit": "RequestsPerMinutePerProject"}, "throttled", "throttled_minute"),
        ({"quota_limit": "PerMinute", "quota_limit_value": "0"}, "refused", "permission_model"),
        ({"quota_limit": "PerMinute", "quota_limit_value": "60"}, "throttled", "throttled_minute"),
    ],
)
@pytest.mark.parametrize("message", ["Exhausted.", "You exceeded your current quota."])
def test_the_limit_that_an_error_names_is_read(metadata, outcome, kind, message):
    info = error_details_pb2.ErrorInfo(reason="RATE_LIMIT_EXCEEDED", metadata=metadata)
    told = refused(aborting("RESOURCE_EXHAUSTED", message, info))
    assert (told.outcome, told.kind) == (outcome, kind)


def test_a_model_that_is_missing_may_be_served_elsewhere():
    message = "Publisher Model `publishers/google/models/m` was not found or your project does not"
    told = refused(aborting("NOT_FOUND", f"{message} have access to it."))
    assert told.kind == "model_missing"
    assert "GOOGLE_CLOUD_LOCATION" in told.reason


def answering(response, target="127.0.0.1:0"):
    async def answer(context):
        return response

    return grpc_server(answer, target)


def generated(length):
    """Return an answer of so many bytes."""
    response = messages.GenerateContentResponse()
    candidate = response.candidates.add(finish_reason=1)
    text = candidate.content.parts.add()
    text.text = "a" * length
    text.text = text.text[: length - (response.ByteSize() - length)]
    assert response.ByteSize() == length
    return response.SerializeToString()


def test_an_answer_that_is_too_large_is_rejected_and_not_throttled():
    error = refused(answering(generated(LARGEST_ANSWER + 1)))
    assert (error.outcome, error.status_code) == ("rejected", 429)
    assert error.reason.startswith("RESOURCE_EXHAUSTED: ")
    assert "larger than max" in error.reason


def test_the_largest_answer_arrives():
    async def check():
        async with answering(generated(LARGEST_ANSWER)) as seen:
            assert len((await asked(seen.target)).text) > LARGEST_ANSWER - 100

    run(check())


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_answer_are_none(method):
    error = refused(answering(b"\xff\xff"), by(method))
    assert (error.outcome, error.status_code, error.retry_after_ms) == ("no_answer", 200, 0)
    assert error.reason == "the answer can't be read"


def test_a_refused_connection_is_nobody_there():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        error = run(failed(f"127.0.0.1:{bound.getsockname()[1]}"))
    assert (error.outcome, error.status_code) == ("unavailable", 503)
    assert "failed to connect to all addresses" in error.reason


def test_a_name_that_does_not_resolve_is_nobody_there():
    assert run(failed("nobody.invalid:443")).outcome == "unavailable"


def disconnect(writer, stream):
    """End a connection as a server does that has died."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def disconnect_after_headers(writer, stream):
    writer.write(headers(stream, *GRPC))
    disconnect(writer, stream)


def close(writer, stream):
    writer.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("act", [disconnect, disconnect_after_headers, close])
def test_a_connection_that_breaks_is_transient(act, method):
    error = refused(http2_server_that(act), by(method))
    assert (error.outcome, error.status_code) == ("transient", 503)
    assert error.retry_after_ms is None  # it may have been processed


def test_a_stream_that_breaks_after_its_first_text_is_transient():
    response = messages.GenerateContentResponse()
    response.candidates.add().content.parts.add(text="To re")
    body = response.SerializeToString()

    def begin(writer, stream):
        message = b"\x00" + len(body).to_bytes(4, "big") + body
        writer.write(headers(stream, *GRPC) + frame(DATA, 0, stream, message))
        writer.write(frame(RST_STREAM, 0, stream, (2).to_bytes(4, "big")))

    error = refused(http2_server_that(begin), by("stream"))
    assert (error.outcome, error.status_code) == ("transient", 500)


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_that_was_refused_can_be_tried_at_once(method):
    refusing = http2_server(lambda stream: frame(RST_STREAM, 0, stream, (7).to_bytes(4, "big")))
    error = refused(refusing, by(method))
    # It was not processed: no word pays for it.
    assert (error.outcome, error.status_code, error.retry_after_ms) == ("interrupted", 503, 0)


def test_a_server_that_refuses_every_stream_is_out_of_order():
    refusing = http2_server(lambda stream: frame(RST_STREAM, 0, stream, (7).to_bytes(4, "big")))

    async def check():
        async with refusing as seen, opened(seen.target, encrypted=False) as channels:
            service = Service("m", Access(seen.target, RESOURCE, None), channels, None)
            outcomes = []
            for _ in range(MOST_REFUSED + 2):
                with pytest.raises(ProviderError) as caught:
                    await service.generate(CALL)
                outcomes.append(caught.value.outcome)
            assert outcomes == ["interrupted"] * MOST_REFUSED + ["unavailable"] * 2

    run(check())


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(0, "transient"), (1, "transient"), (2, "transient"), (8, "transient"), (11, "throttled")],
)
def test_a_stream_that_was_reset_may_have_been_processed(code, outcome):
    server = http2_server(lambda stream: frame(RST_STREAM, 0, stream, code.to_bytes(4, "big")))
    error = refused(server)
    assert (error.outcome, error.retry_after_ms) == (outcome, None)


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_goes_away_is_not_asked_twice_below(method):
    going = http2_server(lambda stream: frame(GOAWAY, 0, 0, bytes(8)))
    error = refused(going, by(method))
    assert (error.outcome, error.status_code) == ("transient", 503)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("302", "transient"),
        ("400", "transient"),
        ("401", "denied"),
        ("403", "denied"),
        ("404", "refused"),
        ("407", "refused"),
        ("413", "rejected"),
        ("429", "throttled"),
        ("500", "transient"),
        ("502", "transient"),
        ("503", "transient"),
    ],
)
def test_a_proxy_that_answers_in_http_alone_is_understood(status, outcome):
    page = ((":status", status), ("content-type", "text/html"))
    error = refused(http2_server(lambda stream: headers(stream, *page, end=True)))
    assert error.outcome == outcome
    assert f"status: {status}" in error.reason


@pytest.mark.parametrize("status", ["77", "99999999999", "x", "-1"])
def test_a_status_that_nobody_knows_is_transient(status):
    fields = (*GRPC, ("grpc-status", status), ("grpc-message", "a%0Ab"))
    error = refused(http2_server(lambda stream: headers(stream, *fields, end=True)))
    assert (error.outcome, error.status_code) == ("transient", 500)


@pytest.mark.parametrize("method", ["generate", "predict"])
def test_a_call_that_ends_well_and_without_an_answer_has_none(method):
    fields = (*GRPC, ("grpc-status", "0"))
    error = refused(
        http2_server(lambda stream: headers(stream, *fields, end=True)), CALL._replace(params={})
    )
    assert (error.outcome, error.reason) == ("no_answer", "the answer can't be read")


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_never_answers_is_given_up_at_the_deadline(method):
    async def never(context):
        await asyncio.get_running_loop().create_future()

    error = refused(grpc_server(never), by(method, CALL._replace(timeout_ms=300)))
    assert (error.outcome, error.status_code) == ("transient", 504)
    assert error.reason.startswith("DEADLINE_EXCEEDED")


def a_piece():
    """Return the beginning of an answer, with the tokens so far."""
    piece = messages.GenerateContentResponse(model_version="m-001")
    piece.candidates.add().content.parts.add(text="To rep")
    piece.usage_metadata.prompt_token_count, piece.usage_metadata.candidates_token_count = 5, 2
    return piece.SerializeToString()


def test_a_stream_that_hangs_after_a_piece_keeps_it_also_where_the_run_is_at_its_deadline_first():
    """By the run's clock the time is over as soon as the piece has come; nothing is lost by it."""

    async def hang(context):
        await context.write(a_piece())
        await asyncio.get_running_loop().create_future()

    async def check():
        now_ms, come, ended = 0, asyncio.Event(), asyncio.Event()
        async with grpc_server(hang) as seen, opened(seen.target, encrypted=False) as channels:
            service = Service("m", Access(seen.target, RESOURCE, None), channels, None)
            given = {(CALL.provider, CALL.model): service}
            executor = LocalExecutor(lambda: now_ms, ended.set, given, lambda *_: come.set())
            executor.submit([CALL._replace(timeout_ms=500)])
            await come.wait()
            now_ms = 500
            assert executor.outcomes() == []
            await ended.wait()
            [end] = executor.outcomes()
            await executor.close()
        assert (end.outcome, end.status_code, end.text) == ("transient", 504, "To rep")
        assert (end.tokens_in, end.tokens_out, end.model_version) == (5, 2, "m-001")
        assert end.reason.startswith("DEADLINE_EXCEEDED")

    run(check())


def test_what_came_before_bytes_that_are_no_answer_is_kept():
    async def garble(context):
        await context.write(a_piece())
        return b"\xff\xff"

    error = refused(grpc_server(garble), by("stream"))
    assert (error.outcome, error.reason) == ("no_answer", "the answer can't be read")
    assert (error.answer.text, error.answer.tokens_in, error.answer.tokens_out) == ("To rep", 5, 2)


async def silent(reader, writer, seen):
    await asyncio.get_running_loop().create_future()


async def hang_up(reader, writer, seen):
    await reader.readexactly(PREFACE_LENGTH)


def saying(said):
    async def say(reader, writer, seen):
        await reader.readexactly(PREFACE_LENGTH)
        writer.write(said)
        await writer.drain()
        await reader.read(-1)

    return say


def test_a_connection_that_is_never_made_ends_at_the_deadline():
    async def check():
        async with socket_server(silent) as seen:
            error = await failed(seen.target, CALL._replace(timeout_ms=300))
            assert (error.outcome, error.status_code) == ("transient", 504)

    run(check())


@pytest.mark.parametrize(
    "connected",
    [
        hang_up,
        saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        saying(b"\x00\x01\x02garbage" * 50),
        saying(frame(PING, 0, 0, bytes(8))),
    ],
    ids=["hangs up", "http/1", "garbage", "no settings"],
)
def test_whoever_does_not_speak_http2_is_nobody(connected):
    async def check():
        async with socket_server(connected) as seen:
            error = await failed(seen.target)
            assert (error.outcome, error.status_code) == ("unavailable", 503)

    run(check())


def test_a_server_that_comes_back_is_found_by_the_same_connection():
    async def check():
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{bound.getsockname()[1]}"
            async with opened(target, encrypted=False) as channels:
                service = Service("m", Access(target, RESOURCE, None), channels, None)
                with pytest.raises(ProviderError, match="failed to connect"):
                    await service.generate(CALL)
                bound.close()
                async with answering(generated(100), target) as seen:
                    await connected_again(channels)
                    assert (await service.generate(CALL)).finish_reason == "STOP"
                    assert seen.requests == 1

    run(check())


async def connected_again(channels):
    with channels.use() as one:
        state = one.channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await one.channel.wait_for_state_change(state)
            state = one.channel.get_state(try_to_connect=True)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_what_is_not_encrypted_goes_through_no_proxy(monkeypatch, variable):
    async def proxy(reader, writer, seen):
        seen.requests += 1

    async def check():
        async with socket_server(proxy) as elsewhere, answering(generated(100)) as seen:
            for name in ("no_proxy", "no_grpc_proxy"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv(variable, f"http://{elsewhere.target}")
            assert (await asked(seen.target)).finish_reason == "STOP"
            assert (seen.requests, elsewhere.requests) == (1, 0)

    run(check())


def told(code, details, *trailing):
    """Return what an error says that gRPC has made itself, in its words."""
    metadata = grpc.aio.Metadata(*trailing)
    return refusal.refused(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details))


@pytest.mark.parametrize(
    ("details", "outcome"),
    [
        ("Getting metadata from plugin failed with error: invalid_grant", "denied"),
        (
            "Getting metadata from plugin failed with error: Temporary failure in name resolution",
            "unavailable",
        ),
        ("DNS resolution failed for x: C-ares status is not ARES_SUCCESS", "unavailable"),
        ("errors resolving x:443: [field:hostname lookup error:not found]", "unavailable"),
        ("Stream removed (ping timeout)", "unavailable"),
        ("keepalive watchdog timeout", "unavailable"),
        ("Socket closed", "transient"),
        (None, "transient"),
    ],
)
def test_unavailable_has_many_meanings(details, outcome):
    assert told(grpc.StatusCode.UNAVAILABLE, details).outcome == outcome


@pytest.mark.parametrize("details", ["Stream removed", "Socket closed", None])
def test_what_a_server_says_of_itself_is_no_outage(details):
    assert told(grpc.StatusCode.INTERNAL, details).outcome == "transient"


@given(
    code=st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]),
    details=st.none() | st.text(),
    brought=st.binary(),
)
def test_nothing_that_a_server_says_is_too_odd_to_read(code, details, brought):
    error = told(code, details, ("grpc-status-details-bin", brought), ("other", "x"))
    assert len(error.reason.splitlines()) == 1
    assert error.outcome != "succeeded"
    assert error.retry_after_ms is None or error.retry_after_ms >= 0
