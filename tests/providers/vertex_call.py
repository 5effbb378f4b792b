"""The call that the tests of the Vertex provider make."""

from crawler.protocol import Call

CALL = Call(
    request_id=1,
    number=1,
    word="abrogate",
    provider="vertex",
    model="gemini-2.5-flash",
    prompt="Define abrogate.",
    prefill="",
    params={},
    timeout_ms=10_000,
)
