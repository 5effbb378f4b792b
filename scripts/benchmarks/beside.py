"""The part of scale.py that measures the ledger's own `turn` beside other rows.

Rule: it imports the package, so scale.py imports it after it has measured memory.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import by_hand
from by_hand import Hand

from crawler.clock import wall_ms
from crawler.ledger import control

BATCH = 100


class Row(NamedTuple):
    """What a row costs in a turn, in us: CPU time, and wall time of all of it."""

    lease: float
    finish: float
    checkpoint: float
    wall: float


def compare(files: Mapping[str, Path], rounds: int, batches: int) -> dict[str, list[Row]]:
    """Lease and finish fresh rows of each file, round by round in turn; the first is the yardstick.

    Each has a prompt with the limit `scripted/scripted`, and `rounds * batches * BATCH` fresh rows.
    """
    costs: dict[str, list[Row]] = {title: [] for title in files}
    with ExitStack() as stack:
        hands = {title: stack.enter_context(by_hand.opened(path)) for title, path in files.items()}
        for hand in hands.values():
            # A limit that learns begins with fewer calls than a batch.
            hand.run(control.set_adaptive, "scripted/scripted", wall_ms(), adaptive=False)
            hand.run(control.set_concurrency, "scripted/scripted", BATCH)
        for _ in range(rounds):
            for title, hand in hands.items():
                costs[title].append(one_round(hand, batches))
    medians = {title: Row(*map(median, zip(*rows, strict=True))) for title, rows in costs.items()}
    first = next(iter(medians.values()))
    for title, row in medians.items():
        show(title, row, first)
    return costs


def one_round(hand: Hand, batches: int) -> Row:
    """Lease and finish some batches, and write back what they changed."""
    hand.checkpoint()
    lease_s = finish_s = 0.0
    began = time.perf_counter()
    for _ in range(batches):
        spent_s, done = spent(hand.turn, [], BATCH)
        lease_s += spent_s
        assert len(done.leases) == BATCH
        spent_s, _ = spent(hand.turn, hand.answers(done.leases), 0)
        finish_s += spent_s
    checkpoint_s, _ = spent(hand.checkpoint)
    wall_s = time.perf_counter() - began
    each = 1e6 / (batches * BATCH)
    return Row(lease_s * each, finish_s * each, checkpoint_s * each, wall_s * each)


def spent(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and what it returns."""
    began = time.thread_time()
    result = function(*args)
    return time.thread_time() - began, result


def show(title: str, row: Row, first: Row) -> None:
    """Print what a row costs in a file, and the ratios to the first file."""
    parts = [
        f"{name} {value:.1f} us ({value / other:.2f})"
        for name, value, other in zip(Row._fields, row, first, strict=True)
    ]
    print(f"turn: {title}: {', '.join(parts)}")
