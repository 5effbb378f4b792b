"""Real processes, really killed: two witnesses, the server's memory and the file, must agree."""

import contextlib
import os
import pty
import signal
import subprocess
import time

import pytest

from crawler.cli.crawl import SAME_SIGNAL_S
from crawler.errors import Exit
from tests.crawls import CONCURRENCY, PROGRAM, Crawl, until
from tests.loopback import serving


def test_two_processes_share_one_file_and_pay_nothing_twice(tmp_path, forks):
    words = [f"word{n}" for n in range(200)]
    with serving() as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        processes = [crawl.fork(), crawl.fork()]
        assert [process.wait(60) for process in processes] == [Exit.DONE, Exit.DONE]
        crawl.call("check")

    assert witness.words == dict.fromkeys(words, 1)


def test_a_limit_holds_for_all_processes_together_and_over_a_kill(tmp_path, forks):
    per_minute = 40
    words = [f"word{n}" for n in range(100)]
    with serving() as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        crawl.call("limit", "openai", "--per-minute", str(per_minute))
        first, second = crawl.fork(), crawl.fork()
        for process in (first, second):
            until(process, "run_started")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        third = crawl.fork("--deadline", "3s")
        until(third, "run_ended")
        assert third.wait(30) == Exit.WORK_LEFT
        os.killpg(second.pid, signal.SIGTERM)
        assert second.wait(30) == Exit.WORK_LEFT
        crawl.call("check")

    # The whole test is shorter than the window, so what arrived in it is what the limit allows.
    assert witness.arrived_at_s[-1] - witness.arrived_at_s[0] < 60
    assert per_minute - CONCURRENCY <= witness.words.total() <= per_minute


def test_the_first_signal_drains_and_the_second_ends_at_once(tmp_path, forks):
    words = [f"word{n}" for n in range(50)]
    with serving(latency_s=1.0) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        polite = crawl.fork()
        assert witness.asked.wait(20)
        polite.send_signal(signal.SIGTERM)
        assert polite.wait(20) == Exit.WORK_LEFT
        in_flight = witness.words.total()
        assert in_flight > 0
        assert crawl.ask("SELECT count(*) FROM results") == [(in_flight,)]

        hasty = crawl.fork()
        witness.asked.clear()
        assert witness.asked.wait(20)
        hasty.send_signal(signal.SIGINT)
        until(hasty, "stop_requested")
        with pytest.raises(subprocess.TimeoutExpired):
            hasty.wait(SAME_SIGNAL_S)
        hasty.send_signal(signal.SIGINT)
        told_at_s = time.monotonic()
        assert hasty.wait(1) == Exit.WORK_LEFT
        print(f"gone {(time.monotonic() - told_at_s) * 1000:.0f} ms after the second signal")

        last = crawl.fork("--concurrency", "50")
        until(last, "run_ended")
        assert last.wait(20) == Exit.DONE
        crawl.call("check")
    assert crawl.ask("SELECT count(*) FROM results") == [(len(words),)]


def test_on_a_terminal_there_is_one_live_line_and_a_last_word(tmp_path, forks):
    words = [f"word{n}" for n in range(40)]
    with serving(latency_s=0.2) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*PROGRAM, "run"],
            env={**os.environ, **crawl.env},
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        assert witness.asked.wait(20)
        process.send_signal(signal.SIGINT)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone when nobody holds it any more
            while part := os.read(ours, 10_000):
                shown += part
        os.close(ours)
        assert process.wait(20) == Exit.WORK_LEFT
        done = crawl.ask("SELECT count(*) FROM results")[0][0]

    text = shown.decode()
    assert "in flight" in text
    assert "stopping: waits for what is in flight" in text
    assert f"{done} succeeded, 0 failed, {len(words) - done} left (stopped)" in text
    assert "go on with: crawler run" in text
    assert text.endswith('limit 5"\r\n')


def test_on_a_terminal_the_second_signal_says_how_to_go_on(tmp_path, forks):
    words = [f"word{n}" for n in range(20)]
    with serving(latency_s=1.5) as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*PROGRAM, "run"],
            env={**os.environ, **crawl.env},
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        assert witness.asked.wait(20)
        process.send_signal(signal.SIGINT)
        shown = b""
        while b"stopping" not in shown:
            shown += os.read(ours, 10_000)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(SAME_SIGNAL_S)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while part := os.read(ours, 10_000):
                shown += part
        os.close(ours)
        assert process.wait(5) == Exit.WORK_LEFT
        assert crawl.fork("--concurrency", "50").wait(20) == Exit.DONE
    assert shown.endswith(b"stopped; go on with: crawler run\r\n")


def test_a_log_that_nobody_reads_any_more_ends_no_run(tmp_path, forks):
    words = [f"word{n}" for n in range(30)]
    with serving() as witness, Crawl(tmp_path, witness.url, words, forks) as crawl:
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [*PROGRAM, "run"], env={**os.environ, **crawl.env}, stderr=writer
        )
        os.close(writer)
        os.close(reader)
        assert process.wait(30) == Exit.DONE
        crawl.call("check")
    assert crawl.ask("SELECT count(*) FROM results") == [(len(words),)]
