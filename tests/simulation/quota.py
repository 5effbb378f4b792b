"""How exactly the crawler keeps to quotas that it knows, does not know, or shares: in virtual time.

Prints the tables of docs/quota.md. --quick: fewer seeds, shorter crawls.
"""

import argparse
import math
import sys
from statistics import mean
from typing import NamedTuple

from crawler.quota.state import Quota
from tests.simulation.client import Client
from tests.simulation.world import KINDS, Server, Tenants, World, bursty, constant, steps

MINUTE_MS = 60_000


class Crawl(NamedTuple):
    """How a crawl went; shares in %."""

    efficiency: float
    refused: float
    served: float
    """Of what the tenants wanted; nan without tenants."""
    client: Client
    end_ms: int


def tenants(name, length_ms):
    """Return the profile of tenants that is called so; None for nobody."""
    match name:
        case "none":
            return None
        case "const":
            return constant(0.3)
        case "steps":
            return steps((0.0, length_ms * 0.25), (0.6, length_ms * 0.6), (0.2, math.inf))
        case "bursty":
            return bursty()
    raise ValueError(name)


def slots_for(quota, latency_ms):
    """Return a generous concurrency: four times what the quota needs."""
    return max(20, 4 * quota * latency_ms // MINUTE_MS)


def ideal_ms(quota, items, others, outage=(0, 0)):
    """Return when so many items could be done beside what others want, at an even pace."""
    wanted = others.wanted_in_second if others else {}
    left, second = float(items), 0
    while second < 10**6:
        free = quota / 60 - wanted.get(second, 0)
        if not outage[0] <= second * 1000 < outage[1]:
            if 0 < left <= free:
                return 1000 * (second + left / free)
            left -= free
        second += 1
    raise ValueError("never")


def crawl(
    quota, kind, *, told=True, who="none", minutes=20, seed=1, latency_ms=1000, items=None,
    slots=None, **server
):  # fmt: skip
    """Crawl to the end, in a world of its own. ``told``: the quota, or what is taken for it."""
    world = World(seed)
    serving = Server(world, quota, kind, latency_ms=latency_ms, **server)
    length_ms = minutes * MINUTE_MS
    profile = tenants(who, length_ms)
    others = Tenants(world, serving, profile) if profile else None
    items = items or quota * minutes
    set_to = Quota(quota if told is True else told or None)
    slots = slots or slots_for(quota, latency_ms)
    client = Client(world, serving, items, slots, set_to, on_done=world.stop)
    world.run(length_ms * 12)
    end_ms = client.finished_at_ms or world.now_ms
    best_ms = ideal_ms(quota, items, others, server.get("outage") or (0, 0)) + latency_ms
    return Crawl(
        min(100.0, 100 * best_ms / end_ms),
        100 * client.refused / client.sent,
        100 * others.served / others.wanted if others and others.wanted else math.nan,
        client,
        end_ms,
    )


def alone(seeds, quotas=(60, 600, 6000)):
    """Known quota, nobody else: the share of the quota, refusals in all."""
    rows = []
    for quota in quotas:
        for kind in (*KINDS, "bucket1"):
            minutes = 20 if quota < 6000 else 8
            runs = [crawl(quota, kind, minutes=minutes, seed=seed) for seed in seeds]
            worst = min(run.efficiency for run in runs)
            most = max(run.client.refused for run in runs)
            rows.append((quota, kind, f"{worst:.1f}", most, slots_for(quota, 1000)))
    _print("known quota, alone", ("quota", "server", "worst %", "refusals", "concurrency"), rows)


def shared(seeds, quotas=(60, 600), whos=("none", "const", "steps", "bursty")):
    """All kinds of servers and tenants: efficiency, refused, others served."""
    rows = []
    for quota in quotas:
        for told in (True, False):
            cells, every = [], []
            for who in whos:
                runs = [
                    crawl(quota, kind, told=told, who=who, seed=seed)
                    for kind in KINDS
                    for seed in seeds
                ]
                every += runs
                cells.append(_means(runs))
            rows.append((quota, "known" if told else "unknown", *cells, _means(every)))
    _print("efficiency % / refused % / others %", ("quota", "", *whos, "all"), rows)


def short(seeds):
    """Short lists, known quota: a window at once, and not at an even pace."""
    rows = []
    for quota, items in ((600, 1000), (60, 20)):
        for kind in ("fixed", "sliding", "bucket"):
            runs = [
                crawl(quota, kind, items=items, slots=400, latency_ms=5, seed=seed)
                for seed in seeds
            ]
            seconds = max(run.end_ms for run in runs) / 1000
            rows.append((quota, items, kind, f"{seconds:.1f}", max(r.client.refused for r in runs)))
    _print("short lists", ("quota", "items", "server", "s", "refused"), rows)


def too_high(seeds):
    """1,000 items at 600, told 800; with hints and without."""
    rows = []
    for hints in (True, False):
        for kind in KINDS:
            runs = [
                crawl(
                    600, kind, told=800, items=1000, slots=400, latency_ms=5, seed=seed, hints=hints
                )
                for seed in seeds
            ]
            seconds = max(run.end_ms for run in runs) / 1000
            refused = max(run.client.refused for run in runs)
            rows.append((kind, "yes" if hints else "no", f"{seconds:.1f}", refused))
    _print("800 told for 600, 1,000 items", ("server", "hints", "s", "refused"), rows)


def outage(seeds):
    """600 a minute, 10 minutes, none of 3 of them served."""
    rows = []
    for told in (True, False):
        runs = [
            crawl(600, kind, told=told, minutes=10, seed=seed, outage=(200_000, 380_000))
            for kind in ("fixed", "bucket10")
            for seed in seeds
        ]
        first = mean(_first_after(run, 380_000) for run in runs)
        failed = mean(run.client.failed for run in runs)
        rows.append(
            (
                "known" if told else "unknown",
                f"{failed:.0f}",
                sum(run.client.lost for run in runs),
                max(run.client.most_failures for run in runs),
                f"{first:.1f}",
                f"{mean(run.efficiency for run in runs):.1f}",
            )
        )
    head = ("quota", "failed calls", "lost", "most failures", "first answer s", "efficiency %")
    _print("outage of 180 s at 600 a minute", head, rows)


def _first_after(run, at_ms):
    return next(when - at_ms for when in run.client.accepted_at_ms if when >= at_ms) / 1000


def restart(seeds):
    """Killed at 90 s, back at 91 s: refusals in the minute after it."""
    rows = []
    for told in (True, False):
        cells = []
        for kind in ("fixed", "sliding", "bucket10"):
            refused = []
            for seed in seeds:
                world = World(seed)
                server = Server(world, 600, kind)
                quota = Quota(600 if told else None)
                first = Client(world, server, 12_000, 40, quota)
                world.run(90_000)
                left = first.kill()
                world.run(91_000)
                again = Client(world, server, left, 40, quota, first.state, first.tries)
                world.run(151_000)
                refused.append(again.refused)
            cells.append(f"{mean(refused):.1f}")
        rows.append(("known" if told else "unknown", *cells))
    _print("killed and restarted: refusals", ("quota", "fixed", "sliding", "bucket10"), rows)


def daily(seeds):
    """600 a day at 60 a minute; the day ends after two hours."""
    rows = []
    for told in (True, False):
        runs = [crawl(60, "fixed", told=told, seed=seed, daily=(600, 7_200_000)) for seed in seeds]
        refused = max(run.client.day_refused for run in runs)
        lost = sum(run.client.left + run.client.lost for run in runs)
        back = mean(_first_after(run, 7_200_000) for run in runs)
        rows.append(("known" if told else "unknown", refused, lost, f"{back:.0f}"))
    _print("daily quota gone for 1.8 h", ("quota", "refused", "lost", "back after s"), rows)


class Scene(NamedTuple):
    """A server that does something wrong, and what a crawl of it is measured by."""

    name: str
    items: int
    length_s: int
    slots: int
    told: int | None
    server: dict
    plain: bool = True
    """A client that does nothing but keep so many calls in flight is a measure of it."""


def three_of_thirty_s(at_ms):
    """Tell whether a server refuses everybody for 3 s of each 30 s."""
    return at_ms % 30_000 < 3_000


SCENES = (
    Scene("one 429 with Retry-After: 3, told 600", 1_200, 600, 10, 600,
          {"lie": (40, 3_000), "latency_ms": 200}, plain=False),
    Scene("one 429 with Retry-After: 3, untold", 1_200, 600, 10, None,
          {"lie": (40, 3_000), "latency_ms": 200}, plain=False),
    Scene("2 % get 429 at random", 600, 300, 10, None, {"refused": 0.02, "latency_ms": 50}),
    Scene("10 % get 429 at random", 600, 300, 10, None, {"refused": 0.1, "latency_ms": 50}),
    Scene("30 % get 429 at random", 600, 300, 10, None, {"refused": 0.3, "latency_ms": 50}),
    Scene("10 % get 429, answers of 1 s", 600, 900, 10, None, {"refused": 0.1}),
    Scene("70 % get 503, 45 s", 10_000, 45, 10, None, {"failing": 0.7}),
    Scene("70 % get 503, 45 s, 50 ms", 10_000, 45, 10, None, {"failing": 0.7, "latency_ms": 50}),
    Scene("out of order for 3 s of each 30", 6_000, 300, 50, None, {"outage": three_of_thirty_s}),
    Scene("one word gets 429 for ever", 300, 300, 10, None, {"poison": [3], "latency_ms": 50}),
    Scene("three words get 429 for ever, told 600", 600, 300, 40, 600,
          {"poison": [3, 50, 51], "kind": "fixed"}, plain=False),
)  # fmt: skip


def scenes(seeds):
    """Servers that refuse and fail for other reasons than a quota, beside a plain client."""
    rows = []
    for scene in SCENES:
        runs = [scene_of(scene, seed) for seed in seeds]
        plain = [plain_of(scene, seed) for seed in seeds]
        done = mean(len(run.done_at_ms) for run in runs)
        end_s = mean((run.finished_at_ms or scene.length_s * 1_000) / 1000 for run in runs)
        beside = f"{mean(count for count, _ in plain):.0f} in {mean(s for _, s in plain):.1f}"
        calls = mean(run.refused for run in runs), mean(run.failed for run in runs)
        rows.append(
            (
                scene.name,
                f"{done:.0f} in {end_s:.1f}",
                f"{calls[0]:.0f}",
                f"{calls[1]:.0f}",
                f"{mean(run.lost for run in runs):.1f}",
                beside if plain else "",
            )
        )
    head = ("server", "answered in s", "refused", "failed", "lost", "plain client")
    _print("what is no quota", head, rows)


def scene_of(scene, seed):
    """Crawl a scene to its end."""
    world = World(seed)
    server = Server(world, 600, **scene.server)
    client = Client(world, server, scene.items, scene.slots, Quota(scene.told), on_done=world.stop)
    world.run(scene.length_s * 1_000)
    return client


def plain_of(scene, seed):
    """Return what a client gets that keeps so many calls in flight, whatever is said."""
    world = World(seed)
    server = Server(world, 600, **scene.server)
    state = {"left": scene.items, "done": 0, "end_ms": scene.length_s * 1_000}

    def start():
        if state["left"]:
            state["left"] -= 1
            world.at(world.now_ms + world.uplink_ms(), arrive, scene.items - state["left"])

    def arrive(item):
        reply = server.reply(item)
        world.at(world.now_ms + reply.after_ms, answer, reply.outcome)

    def answer(outcome):
        state["done"] += outcome == "ok"
        state["left"] += outcome != "ok"
        if state["done"] == scene.items - len(scene.server.get("poison", ())):
            state["end_ms"] = world.now_ms
            world.stop()
        start()

    for _ in range(scene.slots):
        start()
    world.run(scene.length_s * 1_000)
    return state["done"], state["end_ms"] / 1000


def found(seeds):
    """Concurrency that finds itself, on servers of unknown capacity; answers a second."""
    rows = []
    for latency_ms, most in ((200, 20), (200, 64), (1000, 100)):
        for kind in ("queue", "rising", "429", "503"):
            wide = [
                mean(
                    speed_of(kind, most, latency_ms, int(share * most), seed) for seed in seeds[:2]
                )
                for share in (0.7, 0.85, 1.0, 1.15, 1.3)
            ]
            runs = [speed_of(kind, most, latency_ms, None, seed) for seed in seeds]
            share = 100 * mean(runs) / max(wide)
            cells = f"{max(wide):.1f}", f"{mean(runs):.1f}", f"{share:.0f}"
            rows.append((latency_ms, kind, most, *cells))
    head = ("answers ms", "server", "capacity", "best fixed", "found", "%")
    _print("concurrency that nobody sets, after 30 s", head, rows)


def speed_of(kind, most, latency_ms, slots, seed, length_s=90):
    """Return the answers a second after the first 30 s."""
    world = World(seed)
    server = Server(world, 600, latency_ms=latency_ms, capacity=(kind, most))
    client = Client(world, server, 10**6, slots, Quota())
    world.run(length_s * 1000)
    return sum(at_ms >= 30_000 for at_ms in client.done_at_ms) / (length_s - 30)


def _means(runs):
    served = [run.served for run in runs if not math.isnan(run.served)]
    others = f" / {mean(served):.0f}" if served else ""
    return f"{mean(r.efficiency for r in runs):.1f} / {mean(r.refused for r in runs):.2f}{others}"


def _print(title, head, rows):
    table = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for row in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    sys.stdout.flush()


TABLES = (alone, short, shared, too_high, outage, restart, daily, scenes, found)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="scripts/simulate quota", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed instead of three")
    names = [table.__name__ for table in TABLES]
    parser.add_argument("table", nargs="*", choices=[*names, []], help="which; all by default")
    options = parser.parse_args()
    for table in TABLES:
        if not options.table or table.__name__ in options.table:
            table((101,) if options.quick else (101, 102, 103))


if __name__ == "__main__":
    main()
