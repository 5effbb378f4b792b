"""Measures in real time how quotas are kept, known and unknown, against `crawler emulator`.

    scripts/bench quota [--only NAME ...] [--dir FOLDER]

    steady      60 a minute for 5 minutes, in each kind of window: refusals, share of the quota
    killed      the same, killed with -9 in mid-minute and run again
    together    the same, by two processes
    too_high    1,000 words with a limit of 800 where the quota is 600, with and without hints
    daily       the day's quota gone in mid-run, and run again when there is a new day
    unknown     600 a minute, and nobody says so: 10 minutes

All scenes run at once: nearly all of it is waiting. That takes 11 minutes.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import harness

LATENCY_MS = 300
MINUTES = 5


def refusals(log):
    """Return how many calls the emulator has refused, and how many it has let in."""
    codes = [json.loads(line)["code"] for line in log.read_text("utf-8").splitlines()]
    return codes.count("RESOURCE_EXHAUSTED"), codes.count("OK")


class Scene:
    """A database, a list of words, and a place for the emulator's log."""

    def __init__(self, folder, name, words, *options, latency_ms=LATENCY_MS):
        self.database = folder / f"{name}.db"
        self.log = folder / f"{name}.jsonl"
        self._environment = {}
        listed = folder / f"{name}.txt"
        harness.write_words(listed, words)
        harness.prepare(self.database, listed, "--provider", "vertex")
        self.emulator = ("--log", self.log, "--latency-ms", latency_ms, *options)

    def start(self, environment, *options):
        """Begin a run in the background."""
        return subprocess.Popen(
            harness.program(self.database, "run", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )

    def rows(self, sql):
        """Return what the database says."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as conn:
            return conn.execute(sql).fetchall()

    def told(self, name, minutes, quota):
        """Return a line about refusals and the share of the quota that was used."""
        refused, accepted = refusals(self.log)
        share = 100 * accepted / (minutes * quota)
        return f"{name:20} {refused:4} refused  {share:6.1f} % of the quota"


def steady(folder, window):
    """One process."""
    scene = Scene(folder, f"steady-{window}", 400, "--per-minute", 60, "--window", window)
    with harness.emulator(*scene.emulator) as environment:
        run = scene.start(environment, "--per-minute", 60)
        time.sleep(60 * MINUTES)
        run.send_signal(signal.SIGTERM)
        run.wait(30)
    return scene.told(f"steady {window}", MINUTES, 60)


def killed(folder, window):
    """One process after another, the first killed in its second minute."""
    scene = Scene(folder, f"killed-{window}", 400, "--per-minute", 60, "--window", window)
    with harness.emulator(*scene.emulator) as environment:
        run = scene.start(environment, "--per-minute", 60)
        time.sleep(90)
        run.kill()
        run.wait()
        run = scene.start(environment, "--per-minute", 60)
        time.sleep(60 * MINUTES - 90)
        run.send_signal(signal.SIGTERM)
        run.wait(30)
    return scene.told(f"killed {window}", MINUTES, 60)


def together(folder, window):
    """Two processes."""
    scene = Scene(folder, f"together-{window}", 400, "--per-minute", 60, "--window", window)
    with harness.emulator(*scene.emulator) as environment:
        runs = [scene.start(environment, "--per-minute", 60) for _ in range(2)]
        time.sleep(60 * MINUTES)
        for run in runs:
            run.send_signal(signal.SIGTERM)
        for run in runs:
            run.wait(30)
    shares = scene.rows("SELECT run_id, count(*) FROM attempts GROUP BY run_id")
    told = scene.told(f"together {window}", MINUTES, 60)
    return f"{told}, {' and '.join(str(count) for _, count in shares)} calls"


def too_high(folder, window, hint):
    """A limit a third above the quota."""
    quota = ("--per-minute", 600, "--window", window, hint)
    scene = Scene(folder, f"high-{window}{hint}", 1000, *quota, latency_ms=5)
    with harness.emulator(*scene.emulator) as environment:
        run = scene.start(environment, "--per-minute", 800)
        run.wait(300)
    refused, _ = refusals(scene.log)
    ((took_ms,),) = scene.rows("SELECT max(finished_at_ms) - min(started_at_ms) FROM attempts")
    counts = dict(scene.rows("SELECT state, count(*) FROM requests GROUP BY state"))
    return f"too high {window} {hint:16} {took_ms / 1000:6.1f} s  {refused} refused  {counts}"


def daily(folder):
    """A day of 150 requests, and then another."""
    scene = Scene(folder, "daily", 250, "--per-day", 150)
    with harness.emulator(*scene.emulator) as environment:
        run = scene.start(environment, "--per-minute", 6000, "--concurrency", 20)
        code = run.wait(120)
    first, stored = refusals(scene.log)[0], scene.rows("SELECT count(*) FROM responses")[0][0]
    with harness.emulator(*scene.emulator) as environment:
        harness.measure(harness.program(scene.database, "resume"))
        again = scene.start(environment).wait(120)
    accepted = refusals(scene.log)[1]
    return (
        f"daily: exit code {code}, {first} useless calls, {stored} stored;"
        f" the next day exit code {again}, {accepted} calls let in for 250 words"
    )


def unknown(folder, window):
    """Ten minutes with nobody to say what the quota is."""
    scene = Scene(folder, f"unknown-{window}", 7000, "--per-minute", 600, "--window", window)
    with harness.emulator(*scene.emulator) as environment:
        began_s = time.time()
        run = scene.start(environment, "--concurrency", 40)
        time.sleep(600)
        run.send_signal(signal.SIGTERM)
        run.wait(30)
    lines = [json.loads(line) for line in scene.log.read_text("utf-8").splitlines()]
    late = [line for line in lines if 90 <= line["time"] - began_s < 600]
    share = 100 * sum(line["code"] == "OK" for line in late) / (600 / 60 * 510)
    refused, accepted = refusals(scene.log)
    return (
        f"unknown {window}: after 90 s {share:.1f} % of the quota;"
        f" {100 * refused / (refused + accepted):.2f} % of all calls refused"
    )


WINDOWS = ("fixed", "sliding", "bucket")
SCENES = {
    "steady": [(steady, window) for window in WINDOWS],
    "killed": [(killed, window) for window in WINDOWS],
    "together": [(together, window) for window in WINDOWS],
    "too_high": [
        (too_high, window, hint)
        for window in ("fixed", "sliding")
        for hint in ("--retry-info", "--no-retry-info")
    ],
    "daily": [(daily,)],
    "unknown": [(unknown, window) for window in ("fixed", "sliding")],
}


def main():
    """Read the options, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--only", nargs="+", choices=SCENES, default=list(SCENES))
    args = options.parse_args()
    chosen = [scene for name in args.only for scene in SCENES[name]]
    with harness.workspace(args.dir) as folder, ThreadPoolExecutor(len(chosen)) as pool:
        running = [pool.submit(function, folder, *facts) for function, *facts in chosen]
        for scene in running:
            print(scene.result(), flush=True)


if __name__ == "__main__":
    main()
