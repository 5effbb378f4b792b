"""The processes of a machine read one clock, and a wall clock that jumps can't break the window."""

from hypothesis import given
from hypothesis import strategies as st

from crawler.clock import boot_id, since_boot_ms, steady_clock, wall_ms
from crawler.ledger import turn
from crawler.ledger.budget import Allowance
from crawler.ledger.clocks import IDLE_MS, agree_offset_ms, read_ms
from crawler.ledger.runs import Scope
from crawler.protocol import Finish
from crawler.states import Outcome
from tests.conftest import Ledger

BOOT_MS = 5_000_000
HOUR_MS = 3_600_000


def test_whoever_asks_on_one_boot_gets_one_clock(ledger):
    first = agree_offset_ms(ledger.conn, "boot", BOOT_MS, ledger.now_ms)

    for wall in (ledger.now_ms - HOUR_MS, ledger.now_ms + HOUR_MS):
        assert agree_offset_ms(ledger.conn, "boot", BOOT_MS + 9, wall) == first
    assert read_ms(ledger.conn, "boot", BOOT_MS + 9, 0) == ledger.now_ms + 9


def test_a_new_boot_never_begins_before_what_is_on_record(ledger):
    ledger.add(["w"])
    ledger.turn()

    offset = agree_offset_ms(ledger.conn, "boot", 100, ledger.now_ms - HOUR_MS)

    assert 100 + offset == ledger.now_ms


def test_an_idle_file_follows_the_wall_clock(ledger):
    ledger.conn.execute("UPDATE runs SET ended_at_ms = 1, reason = 'done'")
    agree_offset_ms(ledger.conn, "boot", BOOT_MS, ledger.now_ms)
    later = BOOT_MS + IDLE_MS + 1

    moved = agree_offset_ms(ledger.conn, "boot", later, ledger.now_ms + HOUR_MS)

    assert later + moved == ledger.now_ms + HOUR_MS


def test_an_idle_file_keeps_its_clock_where_the_wall_clock_is_behind_what_is_on_record(ledger):
    """Else its time would go back to the newest start, and all that waits would wait again."""
    agreed = agree_offset_ms(ledger.conn, "boot", BOOT_MS, ledger.now_ms)
    ledger.add(["w"])
    ledger.turn()
    ledger.conn.execute("UPDATE runs SET ended_at_ms = 1, reason = 'done'")
    later = BOOT_MS + IDLE_MS + 1

    kept = agree_offset_ms(ledger.conn, "boot", later, ledger.now_ms - HOUR_MS)

    assert kept == agreed


@given(
    skew_ms=st.integers(-(10**9), 10**9),
    took_ms=st.integers(0, 3_000),
    pause_ms=st.integers(0, 50_000),
)
def test_two_processes_whose_wall_clocks_differ_share_one_window(skew_ms, took_ms, pause_ms):
    ledger = Ledger(concurrency=100)
    ledger.fix(5)
    ledger.add(map(str, range(30)))
    since_boot = BOOT_MS

    def scope(run_id, wall_skew_ms):
        wall = ledger.now_ms + wall_skew_ms
        offset = agree_offset_ms(ledger.conn, "boot", since_boot, wall)
        return Scope(
            run_id=run_id,
            policy=ledger.policy,
            clock=lambda: since_boot + offset,
            draw=ledger.random.randint,
        )

    first, second = scope(ledger.run_id, 0), scope(ledger.start_run(), skew_ms)
    leases = turn.turn(ledger.conn, first, [], Allowance(100)).leases
    since_boot += took_ms
    ends = [
        Finish(lease.request_id, lease.number, first.clock(), Outcome.SUCCEEDED, text="t")
        for lease in leases
    ]
    turn.turn(ledger.conn, first, ends, Allowance(0))
    since_boot += pause_ms

    assert len(leases) == 5
    assert turn.turn(ledger.conn, second, [], Allowance(100)).leases == []
    since_boot += 62_000
    assert len(turn.turn(ledger.conn, second, [], Allowance(100)).leases) == 5


def test_the_systems_clocks_are_steady():
    clock = steady_clock(wall_ms() - since_boot_ms())

    assert abs(clock() - wall_ms()) < 1_000
    assert boot_id() == boot_id() != ""


def test_time_goes_on_where_the_file_is_ahead_of_its_clock(ledger):
    """A file that was used elsewhere may hold times that this machine has not reached."""
    agree_offset_ms(ledger.conn, "boot", BOOT_MS, ledger.now_ms - HOUR_MS)
    ledger.add(["w"])
    ledger.turn()

    offset = agree_offset_ms(ledger.conn, "boot", BOOT_MS + 5, ledger.now_ms - HOUR_MS)

    assert BOOT_MS + 5 + offset == ledger.now_ms
