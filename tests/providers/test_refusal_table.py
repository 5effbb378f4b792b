"""What 50 services, gateways and proxies say in place of an answer, and what is done about it."""

import json
from pathlib import Path

import pytest

from crawler.providers.openai.answer import read_body
from crawler.providers.refusals.decision import broken_connection, refusal_of
from crawler.providers.refusals.said import Said
from crawler.states.kinds import MEANINGS, Action, Again, Kind, Scope

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "refusals.jsonl").read_text("utf-8").splitlines()
]
SHARE = 0.98

FAIL = {Action.FAIL, Action.BLOCK}
AGAIN = {Action.AGAIN, Action.ANSWER_AGAIN}
WAIT = {Action.WAIT, Action.WAIT_THEN_STOP}
STOP = {Action.STOP, Action.WAIT_THEN_STOP}
# A model that is loading is waited for, and then stops the prompt: either is right for it.
RIGHT = {
    **dict.fromkeys(("word", "too_large_for_quota"), FAIL),
    **dict.fromkeys(("transient", "timeout_upstream", "half", "accepted_later"), AGAIN),
    **dict.fromkeys(("throttled_minute", "throttled_tokens", "concurrency", "overloaded"), WAIT),
    **dict.fromkeys(
        (
            "throttled_day",
            "money",
            "credentials",
            "permission_model",
            "model_missing",
            "parameter",
            "configuration",
        ),
        STOP,
    ),
    "truncated": {Action.ANSWER_AGAIN},
}
WANTED = {
    "SUCCEEDED": {None},
    "SUCCEEDED-stripped": {None},
    "TRANSIENT": AGAIN,
    "THROTTLED": WAIT,
    "DENIED": STOP,
    "BLOCKED": {Action.BLOCK},
    "BLOCKED?": {Action.BLOCK, *AGAIN},  # asked again, and blocked in the end
}
CONNECTIONS = {
    "refused": "refused",
    "dns": "dns",
    "close0": "closed",
    "half": "half",
    "nothttp": "not_http",
}

# Each miss with its argument; none is left.
MISSES: dict[int, str] = {}


def right(case):
    """Return the actions of which one is right."""
    if "want" in case:
        return WANTED[case["want"]]
    if case["kind"] == "network":
        return STOP if case["again"] == "after a person acted" else WAIT
    return RIGHT[case["kind"]]


def details(case):
    """Return what stands beside a gRPC status, as google.rpc writes it in JSON."""
    if case.get("quota_id"):
        yield {"@type": "QuotaFailure", "violations": [{"quotaId": case["quota_id"]}]}
    elif case["code"]:
        yield {"@type": "ErrorInfo", "reason": case["code"]}
    if case.get("retry_info"):
        yield {"@type": "RetryInfo", "retryDelay": f"{case['retry_info']}s"}


def meant(case, *, served_before):
    """Return the refusal that a case is read as; None where it is a good answer."""
    if case["transport"] == "net":
        return broken_connection(CONNECTIONS[case["net"]], case["body"])
    common = {"service": case["provider"], "served_before": served_before}
    if case["transport"] == "grpc":
        beside = list(details(case))
        return refusal_of(Said(case["status"], {}, case["body"], case["grpc"], beside, **common))
    said = Said(case["status"], case["headers"], case["body"].encode(), **common)
    return read_body(said).refusal if 200 <= case["status"] < 300 else refusal_of(said)


def action(refusal):
    return None if refusal is None else refusal.meaning.action


@pytest.mark.parametrize("served_before", [False, True], ids=["cold", "mid-run"])
def test_nearly_all_that_is_said_gets_the_right_action(served_before):
    missed = {
        case["id"]
        for case in CASES
        if action(meant(case, served_before=served_before)) not in right(case)
    }
    assert len(CASES) == 491
    assert missed == MISSES.keys()
    assert len(missed) <= (1 - SHARE) * len(CASES)


# Whose fault it is decides what else stops: the word alone, one model, the account, the network.
CONCERN = {
    **dict.fromkeys(("word", "too_large_for_quota", "truncated", "half"), frozenset({Scope.WORD})),
    **dict.fromkeys(("money", "credentials"), frozenset({Scope.ACCOUNT, Scope.NETWORK})),
    "model_missing": {Scope.MODEL},
}


def test_the_scope_is_right_where_the_action_depends_on_it():
    wrong = []
    for case in CASES:
        refusal = meant(case, served_before=False)
        wanted = CONCERN.get(case["kind"])
        if refusal is not None and wanted and case["transport"] != "net":
            ours = refusal.scope is Scope.OURS and case["scope"] == "ours"
            again = action(refusal) is Action.AGAIN  # a slip or an end without text
            if refusal.scope not in wanted and not ours and not again:
                wrong.append((case["id"], refusal.kind, refusal.scope))
    assert wrong == []


def test_most_kinds_are_named_as_a_person_named_them():
    same = {
        Kind.BLOCKED: "word",
        Kind.MODEL_LOADING: "model_missing",
        Kind.NETWORK_BLOCKED: "network",
        Kind.FORBIDDEN: "permission_model",
        Kind.ODD: "half",
    }
    told = [
        (case["kind"], refusal.kind)
        for case in CASES
        if "want" not in case and (refusal := meant(case, served_before=True)) is not None
    ]
    alike = sum(kind == same.get(found, found.value) for kind, found in told)
    assert alike / len(told) >= 0.97


def test_a_reason_is_a_sentence_that_quotes_no_header_and_no_repr():
    for case in CASES:
        refusal = meant(case, served_before=False)
        if refusal is not None:
            assert 0 < len(refusal.reason) <= 300, case["id"]
            assert refusal.reason.isprintable(), case["id"]
            words = refusal.reason.partition(": ")[2] or refusal.reason
            assert not words.startswith(("{", "[", "<")) or case["id"] == 514, case["id"]
            assert "': '" not in refusal.reason or case["id"] == 514, case["id"]  # vLLM's own
            assert "content-type" not in refusal.reason.lower(), case["id"]


def test_the_table_of_meanings_is_whole():
    assert MEANINGS.keys() == set(Kind)
    for kind, meaning in MEANINGS.items():
        stops = meaning.action in STOP
        # An outage may end a run as well, and ten answers in sequence that are cut off.
        assert stops == bool(meaning.ends_as) or kind in (Kind.NETWORK, Kind.TRUNCATED), kind
        assert stops <= bool(meaning.remedy), kind
        assert (meaning.action in FAIL) == (meaning.again is Again.NEVER), kind
