"""The whole program in virtual time, seed by seed: killed, frozen, cancelled, its clock set.

Says which seeds break a promise and how to live through one of them again; ends with 1 if any does.
Known seeds, those of seeds.txt, run first, and a new one that fails is put among them.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.bugs import BUGS, FOUND_AS, planted
from tests.simulation.life import ALL, Told, simulate
from tests.simulation.machine import empty_file
from tests.simulation.oracle import most_common

KNOWN = Path(__file__).with_name("seeds.txt")
SEEDS_A_PROCESS = 20
REACHED = (
    *ALL,
    "attempts_abandoned",
    "gate_closed",
    "late_answers_refused",
    "leases_released",
    "released",
    "cancelled",
    "ended finished",
    "ended stopped",
    "ended quota_day",
    "ended unreachable",
    "ended credentials",
    "ended killed",
    "ended max_calls",
    "ended deadline",
)
"""Rare states that a simulation is there for: in 50 seeds each of them has to be reached."""
ENOUGH_SEEDS = 50


def main() -> None:
    """Live through the seeds."""
    options = _options()
    began_s = time.perf_counter()
    seeds = [options.seed] if options.seed is not None else _seeds(options.first, options.seeds)
    told = list(_lived(seeds, options.bug, options.jobs))
    twice = seeds[: options.replays] if options.bug is None else []
    again = {life.seed: life.digest() for life in _lived(twice, None, 1)}
    if options.seed is not None:
        _tell(told[0])
    failed = [life for life in told if life.broken]
    diverged = [life for life in told if life.seed in again and again[life.seed] != life.digest()]
    for life in failed[:10]:
        print(f"seed {life.seed}: {life.broken[0]}")
        print(f"  again: scripts/simulate program --seed {life.seed}{_bug(options.bug)}")
    for life in diverged:
        print(f"seed {life.seed} is not one history: {life.digest()}, then {again[life.seed]}")
    for shape, times in most_common([what for life in failed for what in life.broken])[:10]:
        print(f"{times:6} × {shape}")
    missing = _missing(told) if len(told) >= ENOUGH_SEEDS else []
    if missing:
        print(f"never reached: {', '.join(missing)}")
    _sum_up(told, len(failed), len(again), len(diverged), time.perf_counter() - began_s)
    if failed and options.bug is None:
        _keep([life.seed for life in failed])
    sys.stdout.flush()
    os._exit(bool(failed or diverged or missing))


def _tell(life: Told) -> None:
    """Print a history."""
    for at_s, *event in life.events:
        print(f"{at_s:12.3f}  {' '.join(map(str, event))}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate program", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many  [500]")
    parser.add_argument("--first", type=int, default=0, help="the first of them  [0]")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--replays", type=int, default=20, help="lived through twice  [20]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes  [all cores]")
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this mistake in the program")
    return parser.parse_args()


def _seeds(first: int, count: int) -> list[int]:
    lines = KNOWN.read_text("utf-8").splitlines()
    known = [int(line.split()[0]) for line in lines if not line.startswith("#")]
    return list(dict.fromkeys([*known, *range(first, first + count)]))


def _lived(seeds: list[int], bug: str | None, jobs: int) -> Iterator[Told]:
    """Live through seeds, each in a process that has not lived through many."""
    fork = multiprocessing.get_context("fork")
    empty_file()
    with planted(bug), fork.Pool(jobs, maxtasksperchild=SEEDS_A_PROCESS) as pool:
        for told in pool.imap(simulate, seeds):
            yield told
            if bug is not None and any(FOUND_AS[bug] in what for what in told.broken):
                return


def _missing(told: list[Told]) -> list[str]:
    seen = sum((Counter(life.seen) for life in told), Counter())
    return [state for state in REACHED if not seen[state]]


def _sum_up(told: list[Told], failed: int, replayed: int, diverged: int, took_s: float) -> None:
    seen = sum((Counter(life.seen) for life in told), Counter())
    print("reached: " + ", ".join(f"{state} {seen[state]:,}" for state in REACHED))
    virtual_s = sum(life.virtual_s for life in told)
    speed = f"{virtual_s / took_s:,.0f} times as fast, {len(told) / took_s:.0f} seeds a second"
    print(
        f"{len(told):,} seeds: {failed} failed; {replayed} replayed: {diverged} diverged;"
        f" {sum(life.calls for life in told):,} calls in {virtual_s / 3600:,.1f} virtual hours,"
        f" {took_s:.0f} s ({speed})"
    )


def _keep(seeds: list[int]) -> None:
    """Put seeds among the known ones."""
    known = _seeds(0, 0)
    with KNOWN.open("a", encoding="utf-8") as file:
        file.writelines(f"{seed}\n" for seed in seeds[:10] if seed not in known)


def _bug(bug: str | None) -> str:
    return f" --bug {bug}" if bug else ""


if __name__ == "__main__":
    main()
