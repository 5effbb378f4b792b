"""Every reader of text that somebody else has written, as a function of such a text.

Each swallows the one error that it declares; whatever else it raises is a mistake. What those in
`CLEANED` return may be kept or printed, so the key that they know must not be in it.
"""

import gzip
import io
import json

import click
import grpc
from google.auth.exceptions import RefreshError
from google.rpc import error_details_pb2, status_pb2

from crawler.answer_schema import misfit, require_schema
from crawler.cli.options import Budget, Duration, Moment, Number, Price
from crawler.cli.terminal import as_json, printable, printable_lines, safe_cell
from crawler.emulator.answers import Question, answer
from crawler.emulator.answers import word_of as emulated_word
from crawler.errors import CrawlerError, quoted, require_name
from crawler.lists.form import Reading
from crawler.lists.model_list import read_items
from crawler.lists.reading import read_list
from crawler.lists.words import look_alikes, word_of
from crawler.protocol import Call, ProviderError
from crawler.providers.answers.body_values import body_of, merged
from crawler.providers.answers.check import examine
from crawler.providers.answers.event_stream import EventReader
from crawler.providers.answers.json_answer import read_json, without_fence
from crawler.providers.answers.thoughts import split_thoughts
from crawler.providers.openai.headers import check_headers
from crawler.providers.openai.models import models_in, require_listed
from crawler.providers.openai.renamed_params import other_name
from crawler.providers.openai.reply import Arrived, answer_in, draft_in
from crawler.providers.openai.servers import address_of, exposed_to, secrets_in
from crawler.providers.openai.service import check_params as check_openai_params
from crawler.providers.openai.stream import Gathering
from crawler.providers.proxy import is_address, proxy_for
from crawler.providers.refusals.decision import refusal_of
from crawler.providers.refusals.retry_time import CUES, pause_ms, read_time
from crawler.providers.refusals.said import TELLING, Said
from crawler.providers.refusals.told import told_of
from crawler.providers.vertex.access import _no_token, express_name, location_of, require_loopback
from crawler.providers.vertex.answer import message_in, read_draft, read_generated, read_predicted
from crawler.providers.vertex.messages import GenerateContentResponse, PredictResponse
from crawler.providers.vertex.refusal import refused
from crawler.providers.vertex.service import check_params as check_vertex_params
from crawler.providers.vertex.status_details import DETAILS
from crawler.redaction import HeldBack, redacted
from crawler.storage.schema import _only_adds_columns
from crawler.template import MissingField, Template

KEY = "sk-canary/4f2c9a7d1e5b8036+deadbeef"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^(a|aa)+$"}, "b": {"type": ["array"]}},
    "required": ["a"],
}
CALL = Call(1, 1, "abate", "openai", "m", "About abate.", "", {}, 60_000)
CALLS = (
    CALL,
    CALL._replace(params={"response_schema": SCHEMA}),
    CALL._replace(params={"checks": ["ends_as_sentence", "mentions_word"]}, prefill="<think>\n"),
    CALL._replace(params={"endpoint": "completion"}, prefill='{"a":'),
)
NOW_MS = 1_000_000_000_000

# What some reader looks for, and what keeps one busy that was not careful.
SHAPES = (
    *("[[", "[[{a}", "]]", "{", "[", "{a", '{"a":', '"', "\\\\", "\\u0041", "```json\n", "`", "~"),
    *("\n", " ", "\r", "\t", "\0", "(", "a (", "a)(", "1. ", "1) ", "- ", "a - ", "* ", "__", "."),
    *("a. ", "a,", ",", ";", ": [", "aa bb ", " and ", "<", "<think>", "</think>", "\n <think>"),
    *("<|channel|>", "<|channel|>final<|message|>", "<|end|>", "[THINK]", "\u25c1", "\u0300"),
    *("data: {}\n\n", "data:", "analysisassistantfinal", "x", "1", "sk-canary", "\x00s", "s\x00"),
    *(
        "Retry in 1",
        "per day ",
        "retry after ",
        "limit ",
        "requested ",
        "model ",
        "<html",
        "<title>",
    ),
    *(",aTEXT", ', "a" INT', ", a", "list ", "after  ", "write a list of ", "?!", ". a", "a.a!"),
    *(
        "\u200b",
        "\ufeff",
        "\ud800",
        "\u3164",
        "q=1;w=",
        "00:00:",
        "2026-01-01T",
        "%2F",
        "{\n",
        "]\n",
    ),
)
NAMES = (
    *("choices", "message", "content", "text", "delta", "finish_reason", "error", "errors", "type"),
    *("status", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "details", "code"),
    *(
        "model",
        "reasoning_content",
        "thinking",
        "refusal",
        "index",
        "base_resp",
        "metadata",
        "data",
    ),
    *("promptFeedback", "blockReason", "violations", "quotaId", "quotaValue", "retryDelay", "id"),
    *("quota_limit", "quota_limit_value", "detail", "msg", "raw", "@type", "properties", "pattern"),
    *("required", "enum", "anyOf", "$ref", "items", "headers", "system", "seed", "thought", "word"),
    *(
        "prompt_tokens_details",
        "cached_tokens",
        "stop",
        "length",
        "content_filter",
        "a",
        "b",
        "role",
    ),
)
TOLD = (
    *("retry-after", "retry-after-ms", "date", "ratelimit", "nvcf-poll-seconds", "location"),
    *("x-ratelimit-reset", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-limit-requests"),
    *("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", *TELLING),
    *("x-ratelimit-remaining-requests-day", "anthropic-ratelimit-tokens-limit"),
)
HOW = (
    *(Reading(), Reading(column="a"), Reading(header=False), Reading(delimiter="none")),
    *(Reading(delimiter=";"), Reading(encoding="cp1252"), Reading(encoding="utf-16")),
)


def _but(error, read):
    """Return a reader that may raise one error."""

    def reader(text):
        try:
            return read(text)
        except error as raised:
            return raised, getattr(raised, "reason", None), getattr(raised, "answer", None)

    return reader


def _bytes(text):
    return text.encode("utf-8", "surrogatepass")


def _value(text):
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return text


def _list(name, how=HOW[:1], pack=bytes):
    def read(text):
        errors = [error_of_list(pack(_bytes(text)), name, one) for one in how]
        assert max(map(len, map(str, errors))) < 5_000

    return read


def error_of_list(body, name, how):
    """Return the error that the bytes of a list are refused with; None if they are read."""
    try:
        read_list(io.BytesIO(body), name, how)
    except CrawlerError as error:
        return error


def _events(text):
    reader, gathering, held = EventReader(), Gathering("content", [KEY]), HeldBack([KEY])
    told, body = "", _bytes(text)
    for at in range(0, len(body), 4096):
        for event in reader.feed(body[at : at + 4096]):
            try:
                told += held.read(gathering.add(event))
            except ProviderError as error:
                told += held.read(error.reason)
    return told + held.end(), openai_answers(gathering.body(), CALLS[:1], [200])


def _held(text):
    held = HeldBack([KEY])
    pieces = [held.read(text[at : at + 4096]) for at in range(0, len(text), 4096)]
    return "".join(pieces) + held.end()


def openai_answers(body, calls=CALLS, statuses=(200, 400, 429)):
    """Return what each kind of call makes of a response of each kind."""
    found = []
    for status in statuses:
        arrived = Arrived(status, dict.fromkeys(TOLD, "1"), body, "host")
        for call in calls:
            try:
                found.append(answer_in(call, arrived, [KEY]))
            except ProviderError as error:
                found += [error.reason, error.answer]
            found.append(draft_in(call, arrived, [KEY]))
    return found


def _headers(text):
    headers = dict.fromkeys(TOLD, text)
    said = Said(429, headers, b"", now_ms=NOW_MS, secrets=[KEY])
    read_time(text, NOW_MS)
    pause_ms(headers, text, NOW_MS, [text])
    return refusal_of(said).reason, told_of(said), refusal_of(said._replace(status=302)).reason


def _named_quota(text):
    return [pause_ms({}, f"{cue}{text}", NOW_MS) for cue in CUES]


def vertex_message(text):
    message = GenerateContentResponse(model_version=text, response_id=text)
    candidate = message.candidates.add(finish_reason=1, finish_message=text)
    candidate.content.parts.add(thought=True).text = text
    candidate.content.parts.add().text = text
    return message.SerializeToString()


def vertex_answers(body, calls=CALLS):
    """Return what each kind of call makes of the bytes of a message."""
    found = []
    for call in calls:
        for read in (read_generated, read_draft):
            try:
                found.append(read(call, [message_in(body)], [KEY]))
            except ProviderError as error:
                found += [error.reason, error.answer]
        for at in ("content", "", "candidates.0.content"):
            try:
                found.append(read_predicted(call, message_in(body, PredictResponse), at, [KEY]))
            except ProviderError as error:
                found += [error.reason, error.answer]
    return found


def grpc_errors(said, details):
    """Return what an error of gRPC says, with details in bytes."""
    trailing = grpc.aio.Metadata((DETAILS, details))
    found = []
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, said)
        told = refused(error, [KEY])
        found += [told.reason, told.told, told.retry_after_ms]
    return found


def _grpc_error(text):
    text = text.encode("utf-8", "replace").decode()
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=text, metadata={text: text}))
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(subject=text, description=text)
    status.details.add().Pack(failure)
    return grpc_errors(text, status.SerializeToString())


def _schema(text):
    value = _value(text)
    for schema in (value, {"type": "object", "properties": {"a": value}}, _patterned(text[:500])):
        try:
            require_schema({"response_schema": schema})
        except CrawlerError:
            continue
        misfit(schema, {"a": text})


def _patterned(text):
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": text}}}


def _params(text):
    value = _value(text)
    params = value if isinstance(value, dict) else {"headers": {text: text}, "system": text}
    for check in (check_headers, lambda given: check_openai_params("m", given)):
        _but(CrawlerError, check)(params)
    for given in (params, {"thinking": value}, {"safety_settings": value}, {"instance": value}):
        for model in ("gemini-2.5-flash", "text-bison"):
            _but(CrawlerError, lambda given, model=model: check_vertex_params(model, given))(given)


def _models(text):
    listed = json.dumps({"data": [{"id": text}]}).encode()
    found = [models_in(_bytes(text), [KEY]), models_in(listed, [KEY])]
    refuse = _but(CrawlerError, lambda models: require_listed("openai", "m", models))
    return found, [refuse(models) for models in found]


def _address(text):
    url = text.strip()
    for given in (url, f"http://{url}/v1", f"http://me:{url}@host/v1?{url}"):
        _but(CrawlerError, lambda given: address_of("openai", "m", {"OPENAI_BASE_URL": given}))(
            given
        )
        if is_address(given):
            secrets_in(given)
            exposed_to("openai", {"OPENAI_BASE_URL": given})
        for environ in ({"http_proxy": given}, {"http_proxy": "http://p:1", "no_proxy": given}):
            _but(CrawlerError, lambda environ: proxy_for("http://h:80/v1", environ))(environ)
    for read in (require_loopback, location_of, express_name):
        _but(CrawlerError, read)(text)


def _options(text):
    for kind in (Duration, Number, Budget, Price, Moment):
        _but(click.ClickException, lambda text, kind=kind: kind().convert(text, None, None))(text)


def _emulated(text):
    question = Question(text, 1000)
    return answer(question, emulated_word(text))


def _somebodys_table(text):
    for end in ("", " CHECK (1)"):
        _only_adds_columns("CREATE TABLE a (b)", f"CREATE TABLE a (b{text}{end})")


def _rendered(text):
    template = Template(text)
    return template.all_names(), _but(MissingField, lambda _: template.render("w", {"a": "b"}))(
        text
    )


READERS = {
    "template": _rendered,
    "thoughts": split_thoughts,
    "fence": without_fence,
    "JSON answer": _but(ValueError, read_json),
    "answer": lambda text: [examine(call.params, "w", text, call.prefill) for call in CALLS],
    "items": lambda text: read_items(text, truncated=True),
    "items of an array": lambda text: read_items(json.dumps([text, text]), truncated=False),
    "body": lambda text: merged(body_of(_bytes(text)).values),
    "refusal": lambda text: refusal_of(Said(429, {}, _bytes(text), now_ms=NOW_MS, secrets=[KEY])),
    "page": lambda text: refusal_of(Said(200, {}, b"<html>" + _bytes(text), secrets=[KEY])),
    "renamed": lambda text: other_name(Said(400, {}, _bytes(text)), ["max_tokens"]),
    "OpenAI answer": lambda text: openai_answers(_bytes(text), CALLS[:1], [200]),
    "answer with a schema": lambda text: openai_answers(_bytes(text), CALLS[1:2], [200]),
    "OpenAI error": lambda text: openai_answers(_bytes(text), CALLS[:1], [429]),
    "events": _events,
    "held back": _held,
    "headers": _headers,
    "pause": _named_quota,
    "told": lambda text: told_of(Said(429, {}, _bytes(text), "RESOURCE_EXHAUSTED")),
    "Vertex answer": lambda text: vertex_answers(vertex_message(_sendable(text)), CALLS[:1]),
    "gRPC error": _grpc_error,
    "token server": lambda text: _no_token(RefreshError(text, text)).reason,
    "models": _models,
    "redacted": lambda text: redacted(text, [KEY]),
    "words.txt": _list("words.txt"),
    "words.csv": _list("words.csv"),
    "words.tsv": _list("words.tsv"),
    "words.json": _list("words.json"),
    "words.jsonl": _list("words.jsonl"),
    "words.gz": _list("words.txt.gz", pack=gzip.compress),
    "words of all kinds": _list("words", HOW),
    "words.xlsx": _list("words.xlsx", pack=lambda body: b"PK\x03\x04" + body),
    "words.parquet": _list("words.parquet", pack=lambda body: b"PAR1" + body),
    "schema": _schema,
    "params": _params,
    "address": _address,
    "options": _options,
    "word": _but(CrawlerError, lambda text: word_of(text, {"a": text})),
    "look-alikes": lambda text: look_alikes(text.splitlines()),
    "name": _but(CrawlerError, require_name),
    "printable": printable,
    "lines": printable_lines,
    "JSON to read": as_json,
    "cell": safe_cell,
    "quoted": quoted,
    "somebody's table": _somebodys_table,
    "emulated": _emulated,
}
READINGS = {
    "address": 12,
    "words of all kinds": 7,
    "params": 12,
    "schema": 3,
    "options": 5,
    "pause": 26,
    "OpenAI answer": 2,
    "answer with a schema": 2,
    "OpenAI error": 2,
    "Vertex answer": 5,
    "gRPC error": 2,
    "headers": 4,
    "models": 2,
    "answer": 4,
    "items of an array": 2,
    "events": 3,
}
"""How often some of them read their text; the others do once."""
CLEANED = frozenset(
    {
        *("refusal", "page", "OpenAI answer", "events", "held back", "Vertex answer"),
        *("answer with a schema", "OpenAI error"),
        *("gRPC error", "redacted", "models"),
    }
)


def _sendable(text):
    """Return a text as protobuf takes it."""
    return text.encode("utf-8", "replace").decode()
