"""Whatever comes from outside, no reader raises anything but the error that it declares, and no key
comes out of one: 100,000 examples of each kind in the long form."""

import gzip
import io
import json

import openpyxl
import pyarrow as pa
import pyarrow.parquet
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import LONG
from tests.outside import (
    CALLS,
    CLEANED,
    HOW,
    KEY,
    NAMES,
    READERS,
    SHAPES,
    TOLD,
    error_of_list,
    grpc_errors,
    openai_answers,
    vertex_answers,
    vertex_message,
)

many = settings(max_examples=100_000 if LONG else 60)

PIECES = st.sampled_from([*SHAPES, *NAMES, *TOLD, KEY]) | st.text(max_size=9)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
WORDS = st.sampled_from([*NAMES, KEY, "", "429", "STOP", "43s"]) | TEXTS
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
CHOICES = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), max_size=2)
BODIES = st.builds(
    lambda body, choices: {**body, "choices": choices} if choices is not None else body,
    st.dictionaries(WORDS, VALUES, max_size=4),
    st.none() | CHOICES,
)


def _written(value, *, ascii_only):
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def require_no_key(found):
    """Fail where the key is in what may be kept or printed, as it is or escaped."""
    assert KEY not in repr(found)


@many
@given(TEXTS)
def test_no_reader_of_a_text_fails(text):
    for name, read in READERS.items():
        found = read(text)
        if name in CLEANED:
            require_no_key(found)


@many
@given(
    st.lists(BODIES, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([b"", b"data: "]),
    st.sampled_from(CALLS),
    st.sampled_from([200, 400, 429]),
)
def test_no_body_of_an_openai_compatible_server_fails(bodies, ascii_only, start, call, status):
    pieces = [_written(body, ascii_only=ascii_only) for body in bodies]
    body = b"".join(start + piece + b"\n\n" for piece in pieces)
    require_no_key(openai_answers(body, [call], [status]))
    READERS["events"](
        b"".join(b"data: " + piece + b"\n\n" for piece in pieces).decode(errors="replace")
    )


@st.composite
def spoilt(draw, wholes):
    """Return bytes that were good before some of them were changed, left out or repeated."""
    body = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        end = at + draw(st.integers(0, 4))
        body[at:end] = draw(st.binary(max_size=4) | st.just(body[at:end] * 2))
    return bytes(body)


def _statuses():
    status = status_pb2.Status(code=8, message="no quota")
    for detail in (
        error_details_pb2.RetryInfo(),
        error_details_pb2.ErrorInfo(reason="R", metadata={"quota_limit": "PerDay"}),
        error_details_pb2.QuotaFailure(violations=[{"subject": "s", "description": KEY}]),
        error_details_pb2.BadRequest(field_violations=[{"field": "f", "description": "d"}]),
    ):
        if isinstance(detail, error_details_pb2.RetryInfo):
            detail.retry_delay.seconds = 43
        status.details.add().Pack(detail)
    return status.SerializeToString()


@many
@given(spoilt([_statuses()]), TEXTS)
def test_no_error_of_grpc_fails(details, said):
    require_no_key(grpc_errors(said.encode("utf-8", "replace").decode(), details))


MESSAGES = [vertex_message(text) for text in ("so it is", KEY, '{"a": "b"}')]


@many
@given(spoilt(MESSAGES), st.sampled_from(CALLS))
def test_no_message_of_vertex_fails(body, call):
    require_no_key(vertex_answers(body, [call]))


def _workbook():
    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in (["word", "level"], ["abate", 1], ["zeal", None]):
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def _parquet():
    stream = io.BytesIO()
    table = pa.table({"word": ["abate", "zeal"] * 9, "level": [1, None] * 9})
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


PACKED = (_workbook(), _parquet(), gzip.compress(b"word,level\nabate,1\n" * 9, mtime=0))


@many
@given(spoilt(PACKED), st.sampled_from(HOW))
def test_no_list_that_is_no_text_fails(body, how):
    assert len(str(error_of_list(body, "words", how))) < 5_000
