"""The power goes at every moment of a crawl: what was acknowledged is still there afterwards.

Making a file, migrating an older one, adding words, crawling and closing are recorded below SQLite.
Then the disk is put together as it may be after a cut behind each operation, and the program opens
it again. Exit code 1 if anything is lost or damaged.
"""

import argparse
import asyncio
import functools
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from crawler.clock import wall_ms
from crawler.ledger.check import check as check_file
from crawler.storage.database import writing
from tests.simulation.bugs import BUGS, planted
from tests.simulation.disk import AfterPowerCut, Disk, Operation, fast_folder
from tests.simulation.witness import (
    CONCURRENCY,
    NOTHING,
    Ledger,
    Witness,
    add,
    crawl,
    lost,
    make_older,
    overheard,
    read_ledger,
    words,
)

REBOOT_MS = 600_000
"""How much later the program is back; more than a silent run is waited for."""
RESUME_EVERY = 37
"""A second crawl of every n-th state; a prime, so that each policy has its turn."""
SHOWN = 5


class Recording(NamedTuple):
    """What SQLite did to one file and its log, and what the program knew and did meanwhile."""

    name: str
    words: list[str]
    operations: list[Operation]
    """With notes between them: `committed` (of `ledgers`) and `asked` (of `calls`), by number."""
    ledgers: list[Ledger]
    calls: list[tuple[int, int]]


class Cut(NamedTuple):
    """A moment of a recording, and what of the unsynced is lost."""

    recording: str
    operation: int
    policy: str
    seed: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Loss(NamedTuple):
    """What a state of the disk shows that may not be."""

    cut: Cut
    kind: str
    detail: str


def record(disk: Disk, name: str, count: int, folder: Path) -> Recording:
    """Do all that is done with a file, and write it down."""
    path, texts = folder / f"{name}.db", words(count)
    made = Recording(name, texts, [], [NOTHING], [])

    def committed(ledger: Ledger) -> None:
        made.ledgers.append(ledger)
        disk.note("committed", len(made.ledgers) - 1)

    def asked(*call: int) -> None:
        made.calls.append(call)
        disk.note("asked", len(made.calls) - 1)

    disk.operations = made.operations
    with overheard(committed):
        if name == "older":
            make_older(path, texts[: count // 2])
        else:
            add(path, texts[: count // 2])
        asyncio.run(crawl(path, Witness(asked)))
        add(path, texts)
        asyncio.run(crawl(path, Witness(asked)))
    disk.operations = None
    return made


def cuts(
    recording: Recording, operations: range, seeds: range
) -> Iterator[tuple[Cut, dict[str, bytes], Ledger, list[tuple[int, int]]]]:
    """Yield cuts behind operations, the disk after each, what was committed and asked by then.

    Seed 0 has every policy once; the seeds after it differ only by chance.
    """
    disk, ledger, asked = AfterPowerCut(), NOTHING, 0
    for number, operation in enumerate(recording.operations, 1):
        disk.apply(operation)
        if operation.kind == "committed":
            ledger = recording.ledgers[operation.at]
        elif operation.kind == "asked":
            asked = operation.at + 1
        if number not in operations:
            continue
        for seed in seeds:
            for policy in disk.policies():
                if seed == 0 or policy in ("subset", "torn"):
                    cut = Cut(recording.name, number, policy, seed)
                    files = disk.files(policy, random.Random(str(cut)))
                    yield cut, files, ledger, recording.calls[:asked]


class Opened(NamedTuple):
    """What the program finds on a disk."""

    damage: tuple[str, str] | None
    ledger: Ledger


def opened(folder: Path, name: str, files: dict[str, bytes]) -> Opened:
    """Open a disk with the program; return what is on record, and what is damaged."""
    for left in folder.iterdir():
        left.unlink()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    try:
        with writing(folder / f"{name}.db", wall_ms() + REBOOT_MS) as writer:
            broken = [finding for finding in writer.run(check_file) if finding.broken]
            found = writer.run(read_ledger)
    except Exception as error:  # noqa: BLE001 - whatever it is, the file can't be used
        return Opened(("corrupt", f"{type(error).__name__}: {error}"), NOTHING)
    return Opened(("corrupt", str(broken[0])) if broken else None, found)


def check(found: Opened, ledger: Ledger, asked: list[tuple[int, int]]) -> tuple[str, str] | None:
    """Return what kind of loss a disk shows, and which."""
    if found.damage is not None:
        return found.damage
    gone = lost(ledger, found.ledger)
    if gone:
        return "lost", ", ".join(gone[:SHOWN])
    unrecorded = [call for call in asked if call not in found.ledger.attempts]
    if unrecorded:
        return "unrecorded", f"asked, and no attempt on record: {unrecorded[:SHOWN]}"
    return None


def resumed_badly(folder: Path, recording: Recording, before: Ledger) -> tuple[str, str] | None:
    """Go on with a disk that was opened; return what goes wrong with that."""
    path = folder / f"{recording.name}.db"
    try:
        return _resume(path, recording.words, before, wall_ms() + REBOOT_MS)
    except Exception as error:  # noqa: BLE001 - likewise
        return "corrupt", f"{type(error).__name__}: {error}"


def _resume(path: Path, texts: list[str], before: Ledger, now_ms: int) -> tuple[str, str] | None:
    """Add the list and crawl again; return what goes wrong with that."""
    witness = Witness()
    add(path, texts)
    began_ms = wall_ms()
    ending = asyncio.run(crawl(path, witness, lambda: now_ms + wall_ms() - began_ms))
    with writing(path, now_ms) as writer:
        broken = [finding for finding in writer.run(check_file) if finding.broken]
        after = writer.run(read_ledger)
    again = [call for call in witness.calls if call[0] in before.final]
    in_flight = sum(outcome is None for outcome in before.attempts.values())
    if broken or lost(before, after):
        return "corrupt", f"after a second run: {broken or lost(before, after)}"
    if ending.reason not in ("finished", "failures") or len(after.final) != len(texts):
        return "unfinished", f"{ending}, {len(after.final)} of {len(texts)} words"
    if again or in_flight > CONCURRENCY:
        return "repeated", f"asked again: {again[:SHOWN]}, in flight: {in_flight}"
    return None


def sweep(
    recordings: Path, name: str, operations: range, seeds: range
) -> tuple[int, int, list[Loss]]:
    """Check the cuts of a stretch; return how many there were, how many resumed, what was lost."""
    recording = _load(recordings)[name]
    states = resumed = 0
    losses = []
    known: dict[int, Opened] = {}  # a third of the cuts leave what another has left
    with tempfile.TemporaryDirectory(dir=fast_folder()) as made:
        folder = Path(made)
        for cut, files, ledger, asked in cuts(recording, operations, seeds):
            disk = hash(tuple(sorted(files.items())))
            resume = states % RESUME_EVERY == 0
            if disk not in known or resume:
                known[disk] = opened(folder, name, files)
            loss = check(known[disk], ledger, asked)
            if loss is None and resume:
                loss = resumed_badly(folder, recording, known[disk].ledger)
            states += 1
            resumed += resume
            if loss is not None:
                losses.append(Loss(cut, *loss))
    return states, resumed, losses


@functools.cache
def _load(recordings: Path) -> dict[str, Recording]:
    made_by_us = recordings.read_bytes()
    return {made.name: made for made in pickle.loads(made_by_us)}  # nosec B301


def replay(recordings: Path, only: str) -> list[Loss]:
    """Check one state, with a second crawl."""
    name, number, policy, seed = only.split("/")
    wanted = Cut(name, int(number), policy, int(seed))
    recording = _load(recordings)[name]
    seeds = range(wanted.seed, wanted.seed + 1)
    operations = range(wanted.operation, wanted.operation + 1)
    with tempfile.TemporaryDirectory(dir=fast_folder()) as made:
        folder = Path(made)
        for cut, files, ledger, asked in cuts(recording, operations, seeds):
            if cut == wanted:
                found = opened(folder, name, files)
                loss = check(found, ledger, asked)
                loss = loss or resumed_badly(folder, recording, found.ledger)
                return [Loss(cut, *loss)] if loss else []
    raise SystemExit(f"error: there is no state {only}")


def sweep_all(recordings: Path, least: int, every: int, jobs: int) -> tuple[int, int, list[Loss]]:
    """Check seed after seed until there were enough states, each with cuts all over the course."""
    states, resumed, losses, seed = 0, 0, [], 0
    stretches = jobs * 4
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        while seed == 0 or states < least:
            parts = [
                pool.submit(sweep, recordings, made.name, cut_behind, range(seed, seed + 1))
                for made in _load(recordings).values()
                for cut_behind in _stretches(len(made.operations), every, stretches)
            ]
            for part in parts:
                more, again, found = part.result()
                states, resumed, losses = states + more, resumed + again, losses + found
            seed += 1
    return states, resumed, losses


def _stretches(operations: int, every: int, count: int) -> list[range]:
    """Divide the numbers of the operations among so many, each n-th of them."""
    length = -(-operations // count)
    starts = range(1, operations + 1, length)
    return [range(start, min(start + length, operations + 1), every) for start in starts]


def recorded(kept: Path, count: int, bug: str | None) -> None:
    """Record a file made anew and an older one."""
    try:
        disk = Disk()
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder, planted(bug):
        made = [record(disk, name, count, Path(folder)) for name in ("new", "older")]
    kept.write_bytes(pickle.dumps(made))


def main() -> None:
    """Record, cut, count."""
    parser = argparse.ArgumentParser(prog="scripts/simulate power_loss", description=__doc__)
    parser.add_argument("--states", type=int, default=2_000, help="how many at the least (2000)")
    parser.add_argument("--every", type=int, default=1, help="cut behind each n-th operation (1)")
    parser.add_argument("--words", type=int, default=16, help="how many to crawl (16)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--bug", choices=sorted(BUGS), help="a mistake to plant")
    parser.add_argument("--recording", type=Path, help="its file; made if there is none")
    parser.add_argument("--only", help="one state of it: NAME/OPERATION/POLICY/SEED")
    options = parser.parse_args()
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="power-loss-"))
    kept = options.recording or folder / "recording"
    if not kept.exists():
        recorded(kept, options.words, options.bug)
    if options.only:
        states, resumed, losses = 1, 1, replay(kept, options.only)
    else:
        states, resumed, losses = sweep_all(kept, options.states, options.every, options.jobs)
    for loss in losses[:SHOWN]:
        print(f"{loss.cut}: {loss.kind}: {loss.detail}")
        print(f"  again: scripts/simulate power_loss --recording {kept} --only {loss.cut}")
    kinds = Counter(loss.kind for loss in losses)
    operations = sum(len(made.operations) for made in _load(kept).values())
    print(
        f"{states} states after {operations} operations: {kinds['corrupt']} corrupt,"
        f" {kinds['lost']} lost acknowledged rows,"
        f" {kinds['unrecorded']} without the attempt of a call,"
        f" {resumed} crawled again, {kinds['unfinished'] + kinds['repeated']} of them badly"
        f" ({time.monotonic() - began_s:.0f} s)"
    )
    if options.recording or not losses:
        shutil.rmtree(folder)
    sys.exit(1 if losses else 0)


if __name__ == "__main__":
    main()
