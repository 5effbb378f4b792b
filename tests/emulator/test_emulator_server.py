"""The emulator asked over gRPC, in this process: what a client sees, and what is counted."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from crawler.emulator.answers import MARK, Question
from crawler.emulator.decision import Desk
from crawler.emulator.server import serve
from crawler.emulator.settings import FINISHES, STATUSES, Settings, WordFault
from crawler.emulator.tally import Tally
from crawler.emulator.wire import Asked
from crawler.errors import CrawlerError, Exit
from crawler.providers.vertex import messages

MODEL = "projects/p/locations/l/publishers/google/models/gemini-2.5-flash"
ALL_AT_ONCE = 1_500


def request(prompt, model=MODEL, **config):
    asked = messages.GenerateContentRequest(model=model)
    asked.contents.add(role="user").parts.add(text=prompt)
    for name, value in config.items():
        if name in ("response_schema", "response_json_schema"):
            json_format.ParseDict(value, getattr(asked.generation_config, name))
        else:
            setattr(asked.generation_config, name, value)
    return asked


class Client:
    """Calls the methods of an emulator."""

    def __init__(self, emulator, channel):
        self.emulator = emulator
        self.tally = emulator.tally
        pb = messages
        ask, response = pb.GenerateContentRequest, pb.GenerateContentResponse
        self.generate = channel.unary_unary(pb.GENERATE, ask.SerializeToString, response.FromString)
        self.stream = channel.unary_stream(pb.STREAM, ask.SerializeToString, response.FromString)
        self.predict = channel.unary_unary(
            pb.PREDICT, pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString
        )

    async def text(self, prompt, **config):
        response = await self.generate(request(prompt, **config))
        return response.candidates[0].content.parts[0].text

    async def error(self, prompt, timeout=None):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.generate(request(prompt), timeout=timeout)
        return caught.value

    async def code(self, prompt, timeout=None):
        try:
            await self.generate(request(prompt), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


@asynccontextmanager
async def asked(**settings):
    """Serve, and connect to it."""
    async with (
        serve(Settings(**settings)) as emulator,
        grpc.aio.insecure_channel(emulator.endpoint) as channel,
    ):
        yield Client(emulator, channel)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def always(*kinds):
    return {kind: [WordFault(kind)] for kind in kinds}


def details(error, kind):
    """Return the details of a kind that an error has brought."""
    brought = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(brought)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            found.append(kind())
            detail.Unpack(found[-1])
    return found


def test_an_answer_is_about_the_word_and_marked_and_counted():
    async def check():
        async with asked() as client:
            response = await client.generate(request('Define "abrogate".'))
            assert response.model_version == "gemini-2.5-flash-emulated"
            [candidate] = response.candidates
            assert candidate.finish_reason == messages.Candidate.FinishReason.STOP
            text = candidate.content.parts[0].text
            assert text.startswith(f"{MARK} Definition: revoke formally\n")
            usage = response.usage_metadata
            assert usage.prompt_token_count == 5  # 18 characters
            assert usage.candidates_token_count == -(-len(text) // 4)
            assert usage.total_token_count == 5 + usage.candidates_token_count
            assert await client.text("List 2 words after abjure") == "abnegate, abrogate"
            assert len(await client.text("Define laconic", max_output_tokens=3)) == 12
            assert client.tally.codes == {"OK": 3}

    run(check())


@pytest.mark.parametrize("name", ["response_schema", "response_json_schema"])
def test_json_as_either_schema_has_it(name):
    schema = {"type": "OBJECT", "properties": {"gloss": {"type": "STRING"}}}

    async def check():
        async with asked() as client:
            mime = {"response_mime_type": "application/json"}
            text = await client.text("Define laconic", **{name: schema}, **mime)
            assert list(json.loads(text)) == ["gloss"]
            assert list(json.loads(await client.text("Define laconic", **mime))) == [
                "definition",
                "mnemonic",
            ]

    run(check())


def test_the_tier_that_is_asked_for_is_the_one_that_is_billed():
    async def check():
        async with asked() as client:
            tiers = []
            for header in ((), ("flex",), ("priority",)):
                metadata = [("x-vertex-ai-llm-shared-request-type", tier) for tier in header]
                response = await client.generate(request("a"), metadata=metadata)
                usage = response.usage_metadata
                field = usage.DESCRIPTOR.fields_by_name["traffic_type"]
                tiers.append(field.enum_type.values_by_number[usage.traffic_type].name)
            assert tiers == ["ON_DEMAND", "ON_DEMAND_FLEX", "ON_DEMAND_PRIORITY"]

    run(check())


def test_a_stream_is_the_same_answer_in_pieces_and_ends_with_reason_and_usage():
    async def check():
        async with asked(latency_ms=10, word_faults=always("thoughts")) as client:
            whole = await client.generate(request("Define laconic"))
            chunks = [chunk async for chunk in client.stream(request("Define laconic"))]
            assert len(chunks) == 4
            texts = [chunk.candidates[0].content.parts[0].text for chunk in chunks]
            assert "".join(texts) == whole.candidates[0].content.parts[0].text
            reasons = [chunk.candidates[0].finish_reason for chunk in chunks]
            assert reasons == [0, 0, 0, 1]
            assert chunks[-1].usage_metadata == whole.usage_metadata
            assert not chunks[0].HasField("usage_metadata")
            odd = [chunk async for chunk in client.stream(request('"thoughts"'))]
            thoughts = [part.thought for c in odd for part in c.candidates[0].content.parts]
            assert thoughts == [True, False, False, False, False]

    run(check())


def test_predict_answers_as_the_older_models_did():
    async def check():
        async with asked(word_faults=always("safety", "no_candidates")) as client:
            found = await predict(client, [{"prompt": "Define laconic"}, {"content": '"ennui"'}])
            first, second = found["predictions"]
            assert first["content"].startswith(f"{MARK} Definition: brief")
            assert "ennui" in second["content"]
            assert first["safetyAttributes"]["blocked"] is False
            counts = found["metadata"]["tokenMetadata"]
            assert counts["inputTokenCount"]["totalTokens"] == 6
            [cut] = (await predict(client, [{"prompt": "a"}], maxOutputTokens=2))["predictions"]
            assert len(cut["content"]) == 8
            [refused] = (await predict(client, [{"prompt": '"safety"'}]))["predictions"]
            assert refused["content"] == ""
            assert refused["safetyAttributes"]["blocked"] is True
            assert "predictions" not in await predict(client, [{"prompt": '"no_candidates"'}])

    run(check())


async def predict(client, instances, **parameters):
    asked_for = messages.PredictRequest(endpoint="publishers/google/models/text-bison")
    for instance in instances:
        json_format.ParseDict(instance, asked_for.instances.add())
    json_format.ParseDict(parameters, asked_for.parameters)
    return json_format.MessageToDict(await client.predict(asked_for))


def test_every_status_can_be_ordered():
    async def check():
        async with asked(word_faults=always(*STATUSES)) as client:
            for name in STATUSES:
                assert await client.code(f'"{name}"') == name.upper()
            assert set(client.tally.codes) == {name.upper() for name in STATUSES}

    run(check())


def test_odd_answers_have_the_shapes_that_vertex_gives_them():
    odd = (*FINISHES, "blocked", "no_candidates", "empty", "thoughts", "truncated")

    async def check():
        async with asked(word_faults=always(*odd)) as client:
            found = {kind: await client.generate(request(f'"{kind}"')) for kind in odd}
            names = messages.Candidate.FinishReason.Name
            for kind in FINISHES:
                assert names(found[kind].candidates[0].finish_reason) == kind.upper()
                assert not found[kind].candidates[0].HasField("content")
            assert found["blocked"].prompt_feedback.block_reason == 1
            assert not found["blocked"].candidates
            assert not found["no_candidates"].candidates
            assert not found["no_candidates"].HasField("prompt_feedback")
            assert not found["empty"].candidates[0].content.parts
            assert names(found["empty"].candidates[0].finish_reason) == "STOP"
            assert names(found["truncated"].candidates[0].finish_reason) == "MAX_TOKENS"
            thought, text = found["thoughts"].candidates[0].content.parts
            assert thought.thought
            assert not text.thought
            assert found["thoughts"].usage_metadata.thoughts_token_count > 0

    run(check())


def test_a_large_answer_is_more_than_a_client_takes_by_default():
    async def check():
        async with asked(word_faults=always("large")) as client:
            error = await client.error('"large"')
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in error.details()

    run(check())


def test_a_request_without_a_prompt_is_invalid():
    async def check():
        async with asked() as client:
            assert await client.code("") == "INVALID_ARGUMENT"

    run(check())


def test_a_call_that_hangs_is_in_flight_until_the_client_gives_up():
    async def check():
        async with asked(word_faults=always("hang"), max_concurrent=1) as client:
            call = client.generate(request('"hang"'))
            while client.tally.in_flight == 0:
                await asyncio.sleep(0.001)
            assert await client.code("a") == "RESOURCE_EXHAUSTED"
            call.cancel()
            while client.tally.in_flight:
                await asyncio.sleep(0.001)
            assert await client.code("a") == "OK"
            assert await client.code('"hang"', timeout=0.05) == "DEADLINE_EXCEEDED"
            assert client.tally.codes == {"HANG": 2, "RESOURCE_EXHAUSTED": 1, "OK": 1}

    run(check())


def test_a_reset_breaks_every_call_on_the_connection_and_no_other_connection():
    async def check():
        faults = {"hang": [WordFault("hang")], "reset": [WordFault("reset", 1)]}
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            asked(word_faults=faults) as client,
            grpc.aio.insecure_channel(client.emulator.endpoint, options=own) as channel,
        ):
            untouched = Client(client.emulator, channel).generate(request('"hang"'))
            broken = asyncio.gather(client.error('"hang"'), client.error('"hang"'))
            while client.tally.in_flight < 3:
                await asyncio.sleep(0.001)
            errors = [await client.error('"reset"'), *await broken]
            assert {error.code().name for error in errors} == {"UNAVAILABLE"}
            while await client.code('"reset"') != "OK":
                pass  # the client may still be writing to the connection that is gone
            while client.tally.in_flight > 1:
                await asyncio.sleep(0.001)
            assert not untouched.done()

    run(check())


def test_a_refusal_names_the_quota_and_the_true_wait():
    async def check():
        async with asked(per_minute=2, window="sliding", window_ms=1_000) as client:
            assert [await client.code("a") for _ in range(2)] == ["OK", "OK"]
            error = await client.error("a")
            metric = (
                "aiplatform.googleapis.com/"
                "generate_content_requests_per_minute_per_project_per_base_model"
            )
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details().startswith(
                f"Quota exceeded for {metric} with base model: gemini-2.5-flash"
            )
            [info] = details(error, error_details_pb2.ErrorInfo)
            assert info.reason == "RATE_LIMIT_EXCEEDED"
            assert info.metadata["quota_metric"] == metric
            [failure] = details(error, error_details_pb2.QuotaFailure)
            assert failure.violations[0].subject == metric
            [retry] = details(error, error_details_pb2.RetryInfo)
            wait_s = retry.retry_delay.ToNanoseconds() / 1e9
            assert 0 < wait_s <= 1
            await asyncio.sleep(wait_s)
            assert await client.code("a") == "OK"

    run(check())


def test_other_quotas_have_other_names_and_the_day_no_end():
    async def check():
        async with asked(tokens_per_minute=60, per_day=1, retry_info=False) as client:
            error = await client.error("a" * 400)
            assert "_tokens_per_minute_" in error.details()
            assert not details(error, error_details_pb2.RetryInfo)
            assert await client.code("a") == "OK"
            error = await client.error("a")
            assert "_requests_per_day_" in error.details()

    run(check())


def test_no_more_calls_are_carried_out_at_once_than_are_allowed():
    async def check():
        async with asked(word_faults=always("hang"), max_concurrent=7) as client:
            calls = [client.generate(request('"hang"')) for _ in range(7)]
            while client.tally.in_flight < 7:
                await asyncio.sleep(0.001)
            codes = Counter(await asyncio.gather(*(client.code("a") for _ in range(43))))
            assert codes == {"RESOURCE_EXHAUSTED": 43}
            assert client.tally.most_in_flight == 7
            calls[0].cancel()
            while client.tally.in_flight == 7:
                await asyncio.sleep(0.001)
            assert await client.code("a") == "OK"
            for call in calls:
                call.cancel()

    run(check())


def test_more_than_a_thousand_calls_at_once_are_all_answered():
    async def check():
        async with asked() as client:
            codes = await asyncio.gather(*(client.code("a") for _ in range(ALL_AT_ONCE)))
            assert Counter(codes) == {"OK": ALL_AT_ONCE}
            assert client.tally.summary()["answered_more_than_once"] == {"a": ALL_AT_ONCE}

    run(check())


def test_the_log_tells_what_became_of_each_request(tmp_path):
    log = tmp_path / "log.jsonl"

    async def check():
        faults = {"odd": [WordFault("internal", 1), WordFault("safety", 1)]}
        async with asked(word_faults=faults, per_minute=3, log=log) as client:
            for prompt in ('"odd"', '"odd"', "laconic", '"odd"', '"odd"'):
                await client.code(prompt)
        return client.tally

    tally = run(check())
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    keys = ("word", "nth", "code", "fault", "why", "in_flight")
    assert [tuple(line[key] for key in keys) for line in lines] == [
        ("odd", 1, "INTERNAL", "internal", None, 1),
        ("odd", 2, "OK", "safety", None, 1),
        ("laconic", 1, "OK", None, None, 1),
        ("odd", 3, "RESOURCE_EXHAUSTED", None, "minute", 0),
        ("odd", 3, "RESOURCE_EXHAUSTED", None, "minute", 0),
    ]
    assert [line["tokens_out"] > 0 for line in lines] == [False, False, True, False, False]
    assert {line["method"] for line in lines} == {"GenerateContent"}
    assert tally.codes == {"OK": 2, "INTERNAL": 1, "RESOURCE_EXHAUSTED": 2}
    assert tally.last_minute(lines[-1]["time"]) == 5
    assert tally.last_minute(lines[-1]["time"] + 61) == 0


def test_in_an_outage_every_call_is_unavailable_and_costs_nothing():
    async def check():
        faults = {"a": [WordFault("aborted", 1)]}
        async with asked(outage_s=(0, 0.4), per_minute=1, word_faults=faults) as client:
            assert await client.code("a") == "UNAVAILABLE"
            while (code := await client.code("a")) == "UNAVAILABLE":
                await asyncio.sleep(0.01)
            assert code == "ABORTED"  # the first that was let in
            assert client.tally.most_in_flight == 1

    run(check())


def test_an_outage_may_come_again_and_refuse_without_a_word_of_a_quota():
    burst = Settings(outage_s=(1, 3, 30), outage_kind="resource_exhausted")
    desk = Desk(burst, Tally(None), 0)
    for second, code in ((0, "OK"), (1, None), (2.9, None), (3, "OK"), (31, None), (33.5, "OK")):
        call = desk.decide(
            "GenerateContent", Asked("m", [Question("a", 9)], 1), int(second * 1_000)
        )
        assert call.is_let_in == (code == "OK"), second
        assert call.code == (code or "RESOURCE_EXHAUSTED")


def test_an_outage_may_close_the_port_for_as_long_as_it_lasts():
    async def check():
        settings = Settings(outage_s=(0, 1), outage_kind="refused")
        async with serve(settings) as emulator:
            host, port = emulator.endpoint.split(":")
            await emulator.keep_outage()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))
            while True:
                await emulator.keep_outage()
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                break
            async with grpc.aio.insecure_channel(emulator.endpoint) as channel:
                assert await Client(emulator, channel).code("a") == "OK"

    run(check())


def test_a_port_that_is_taken_is_told():
    async def check():
        async with serve(Settings()) as emulator:
            port = int(emulator.endpoint.rpartition(":")[2])
            with pytest.raises(CrawlerError, match=str(port)) as caught:
                async with serve(Settings(port=port)):
                    pass
            assert caught.value.exit_code == Exit.CONFIGURATION

    run(check())


def test_two_emulators_with_one_seed_treat_the_words_alike_whatever_the_order():
    faults = {"unavailable": 0.3, "internal": 0.2}

    async def check(words):
        async with asked(seed=5, faults=faults) as client:
            codes = await asyncio.gather(*(client.code(f'"{word}"') for word in words))
            return dict(zip(words, codes, strict=True))

    words = [f"w{number}" for number in range(100)]
    forwards, backwards = run(check(words)), run(check(words[::-1]))
    assert forwards == backwards
    assert set(forwards.values()) == {"OK", "UNAVAILABLE", "INTERNAL"}
