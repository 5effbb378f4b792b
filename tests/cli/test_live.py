"""The two lines of a run on a terminal: what it waits for comes first, and nothing is too wide."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from crawler.cli.live import ASCII, Live, Signs, doing, done, drawn
from crawler.ledger.status import LimitStatus, OldestCall, Progress, Status

NOW_MS = 1_000_000
QUOTA = "429 quota exceeded: generate_content_requests_per_minute_per_project_per_base_model"


def limit(name="vertex/m", *, waits_ms=None, held_by="gate", cause="quota", **facts):
    known = {
        **dict.fromkeys(LimitStatus._fields),
        "limit": name,
        "in_flight": 0,
        "started_last_minute": 0,
        "succeeded_per_minute": 0.0,
        "unfinished": 1_692,
    }
    if waits_ms is not None:
        held = {"until_ms": NOW_MS + waits_ms, "held_by": held_by, "cause": cause, "reason": QUOTA}
        known |= held
    return LimitStatus(**(known | facts))


def status(*limits, pending=1_692, succeeded=3_071, failed=49, oldest_ms=None):
    progress = Progress("define", 2, "vertex", "m", pending, 0, succeeded, failed, 0, current=True)
    oldest = None if oldest_ms is None else OldestCall(1, 1, "laconic", "define", oldest_ms)
    return Status([progress], list(limits), [], NOW_MS, oldest)


def test_what_all_limits_wait_for_comes_first_and_the_servers_words_last():
    alone = doing(status(limit(waits_ms=27_000)), " · ")
    assert alone == f"waits 27 s: {QUOTA}"
    both = doing(
        status(limit("a", waits_ms=27_000), limit("b", waits_ms=4_000, cause="outage")), " · "
    )
    assert both.startswith("b waits 4 s: the server is away: 429"), "it opens first"
    assert " · a waits 27 s: 429" in both


def test_where_a_limit_lets_calls_start_that_comes_first():
    asks = limit("a", in_flight=20, per_minute=600, started_last_minute=587)
    found = doing(status(asks, oldest_ms=3_000), " · ")
    assert found == "asks: 20 in flight, 587/600 this minute, the oldest for 3 s"
    found = doing(status(asks, limit("b", waits_ms=27_000)), " · ")
    assert found.startswith(
        "asks: 20 in flight, 587/600 this minute of a · b waits 27 s: 429 quota"
    )
    soon = limit(waits_ms=900, in_flight=3)
    assert doing(status(soon), " · ").startswith("asks: 3 in"), "over before it is read"


def test_in_an_outage_each_frame_says_so_and_within_60_columns_what_was_said():
    refused = {"cause": "outage", "reason": "cannot connect: Connection refused"}
    for waits_ms, first in ((2_600, "waits 3 s"), (400, "waits 1 s"), (0, "one call tries")):
        for in_flight in (0, 1):
            frame = limit(waits_ms=waits_ms, in_flight=in_flight, **refused)
            line = drawn(status(frame), 60, Signs()).split("\n")[0]
            assert line == f"{first}: cannot connect: Connection refused"
    tried = limit(in_flight=1)._replace(**refused)
    assert doing(status(tried), "").startswith("one call tries: cannot connect"), "open"


def test_where_nothing_is_in_flight_nobody_asks():
    assert doing(status(limit()), "") == "starts calls"
    assert doing(status(pending=0), "") == "waits for more words"


def asking(eta_minutes=4.107, **facts):
    """Return the status of a run with 1,692 words left, and a rate."""
    rate = 1_692 / eta_minutes
    return status(limit(in_flight=20, succeeded_per_minute=rate), **facts)


@pytest.mark.parametrize("width", [30, 40, 55, 56, 60, 80, 100, 140, 200])
def test_what_is_done_and_left_is_in_each_width(width):
    line = done(asking(), width, Signs())
    assert line.endswith(" left")
    for needed in ("3,120/4,812", "49 failed", "4 min 6 s"):
        assert needed in line
    if width >= 40:
        assert len(line) <= width
    assert ("412 a minute" in line) == (width == 55 or width >= 80)
    assert ("65%" in line) == (width >= 80)
    bar = line.count("━") + line.count("─")
    assert bar == 0 if width < 56 else 8 <= bar <= 40


def test_a_bar_is_full_when_all_is_done():
    assert done(status(pending=0), 140, Signs()).startswith("━" * 40 + "  3,120/3,120 · 49 failed")
    assert done(status(succeeded=0, failed=0), 140, Signs()).startswith("─" * 40 + "  0/1,692")


def test_the_time_left_is_unknown_until_there_is_a_rate():
    assert "· … left" in done(status(limit()), 80, Signs())
    assert "| ... left" in done(status(limit()), 80, ASCII)


def test_a_terminal_without_unicode_gets_none(monkeypatch):
    for encoding in ("ascii", "utf-8"):
        out = io.BytesIO()
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(out, encoding, write_through=True))
        monkeypatch.setenv("FORCE_COLOR", "1")
        live = Live()
        live.show(asking())
        live.stop()
        assert (b"3,120/4,812" in out.getvalue(), out.getvalue().isascii()) == (
            True,
            encoding == "ascii",
        )


@given(st.text(max_size=200), st.integers(20, 200))
def test_no_line_is_wider_than_the_terminal(said, width):
    lines = drawn(status(limit(waits_ms=27_000, reason=said)), width, Signs()).split("\n")
    assert len(lines) == 2
    assert cell_len(lines[0]) <= width
