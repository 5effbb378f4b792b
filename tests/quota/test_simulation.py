"""The quota simulation, short: what docs/quota.md promises, by the product's own plan and pace."""

from statistics import mean

import pytest

from crawler.ledger import control
from crawler.protocol import Finish
from crawler.quota.state import Quota
from crawler.states import Outcome
from tests.conftest import LONG, Ledger
from tests.simulation.client import Client
from tests.simulation.quota import (
    KINDS,
    SCENES,
    crawl,
    plain_of,
    scene_of,
    slots_for,
    speed_of,
)
from tests.simulation.world import Server, World


@pytest.mark.parametrize("quota", [60, 600])
@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
def test_a_known_quota_is_used_and_nothing_is_refused(quota, kind):
    run = crawl(quota, kind, minutes=10)
    assert run.client.refused == 0
    assert run.efficiency >= 98.5


@pytest.mark.parametrize(("quota", "kind"), [(60, "bucket10"), (600, "bucket10"), (600, "bucket1")])
def test_a_server_that_takes_no_bursts_says_so_once(quota, kind):
    run = crawl(quota, kind)
    assert run.client.refused <= slots_for(quota, 1000)
    assert run.efficiency >= 98


def test_short_lists_are_not_paced():
    thousand = crawl(600, "sliding", items=1000, slots=400, latency_ms=5)
    assert thousand.end_ms <= 62_000
    assert crawl(60, "fixed", items=20, latency_ms=5).end_ms <= 2_000


@pytest.mark.parametrize("told", [True, False])
def test_a_shared_quota_is_shared(told):
    runs = [crawl(600, kind, told=told, who="const", minutes=10) for kind in KINDS]
    assert mean(run.efficiency for run in runs) >= 97
    assert mean(run.refused for run in runs) <= 1.6
    assert mean(run.served for run in runs) >= 90


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_a_limit_a_third_too_high_costs_a_few_calls(kind, hints):
    run = crawl(600, kind, told=800, items=1000, slots=400, latency_ms=5, hints=hints)
    assert run.end_ms <= 63_000
    assert run.client.refused <= 15, "the way there and back takes 100 ms"
    assert run.client.lost == 0


def test_an_outage_costs_few_calls_and_no_item():
    run = crawl(600, "fixed", minutes=10, outage=(200_000, 380_000))
    assert run.client.failed <= 60
    assert run.client.lost == 0
    assert run.client.most_failures <= 5


def test_a_day_that_is_used_up_is_waited_for():
    run = crawl(60, "fixed", daily=(600, 7_200_000))
    assert run.client.day_refused <= 20
    assert (run.client.left, run.client.lost) == (0, 0)


@pytest.mark.parametrize(
    "scene", [scene for scene in SCENES if scene.length_s <= 300], ids=lambda scene: scene.name
)
def test_what_is_no_quota_is_not_taken_for_one(scene):
    run = scene_of(scene, 101)
    done = len(run.done_at_ms)
    assert done >= 0.75 * (plain_of(scene, 101)[0] if scene.plain else scene.items)
    assert run.lost <= len(scene.server.get("poison", ()))


@pytest.mark.parametrize("told", [600, None])
def test_a_retry_after_that_lies_costs_its_time_and_little_more(told):
    """One 429 at call 40 and never again: no minute is learned from it."""
    (scene,) = [scene for scene in SCENES[:2] if scene.told == told]
    run = scene_of(scene, 101)
    assert run.finished_at_ms < (125_000 if told else 80_000)
    assert run.refused == 1


@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
def test_a_quota_that_the_server_tells_is_used_and_nothing_is_refused(kind):
    run = crawl(600, kind, told=False, minutes=10, tells=True)
    assert run.client.refused == 0
    assert run.efficiency >= 98


@pytest.mark.parametrize("kind", ["queue", "rising", "429", "503"])
def test_a_concurrency_that_nobody_sets_is_found(kind):
    widths = (48, 56, 64, 73, 83) if LONG else (73, 83)  # one of these two is the best each time
    best = max(speed_of(kind, 64, 200, slots, 101, 60) for slots in widths)
    assert speed_of(kind, 64, 200, None, 101, 60) >= 0.88 * best


class ByTurns(Client):
    """The same client, but for its plan: that is the ledger's own turn, on a database."""

    def __init__(self, world, server, items, slots, quota):
        self.ledger = Ledger(concurrency=slots)
        self.ledger.now_ms = 0
        control.set_per_minute(self.ledger.conn, "quota", quota.per_minute, 0)
        self.ledger.add(map(str, range(items)))
        self.began_at_ms = []
        super().__init__(world, server, items, slots, quota)

    def ledger_draw(self):
        """Wait as long as the client in memory waits."""
        self.ledger.random = self

    def randint(self, low, high):
        return self.draw(low, high)

    def _turn(self, *finished):
        self.ledger.now_ms = self._world.now_ms
        done = self.ledger.turn(*finished)
        for lease in done.leases:
            self.began_at_ms.append(self._world.now_ms)
            self._world.at(self._world.now_ms + self._world.uplink_ms(), self._arrive, lease)
        if done.wake_at_ms is not None:
            self._wake_at(done.wake_at_ms)

    def _answer(self, lease, reply):
        outcome = {"ok": Outcome.SUCCEEDED, "failed": Outcome.TRANSIENT}.get(
            reply.outcome, Outcome.THROTTLED
        )
        self.refused += outcome is Outcome.THROTTLED
        self._turn(
            Finish(
                lease.request_id,
                lease.number,
                self._world.now_ms,
                outcome,
                text="t",
                reason="429",
                status_code=429,
                retry_after_ms=reply.retry_after_ms,
            )
        )


def both_ways(items, slots, told, kind="none", **server):
    """Return a crawl with the counts in memory, and the same one on a database."""

    def run(make):
        world = World(5)
        client = make(world, Server(world, 60, kind, **server), items, slots, Quota(told))
        client.draw = lambda low, high: high
        client.ledger_draw()
        world.run(240_000)
        return client

    return run(Recorded), run(ByTurns)


@pytest.mark.parametrize("kind", ["fixed", "bucket10"])
@pytest.mark.parametrize("told", [60, 90, None])
def test_the_simulated_client_does_what_the_ledger_does(kind, told):
    """One world with the counts in memory, one with a database: the same calls, to the ms."""
    in_memory, by_turns = both_ways(500, 20, told, kind, hints=told == 90)
    assert by_turns.began_at_ms == in_memory.began_at_ms
    assert by_turns.refused == in_memory.refused
    assert len(by_turns.began_at_ms) > 200


@pytest.mark.parametrize(
    "server",
    [
        {"refused": 0.1, "latency_ms": 300},
        {"failing": 0.3},
        {"outage": (20_000, 60_000)},
        {"capacity": ("429", 20)},
        {"capacity": ("503", 20)},
        {"capacity": ("queue", 20)},
        {"lie": (40, 3_000), "latency_ms": 200},
    ],
    ids=lambda server: next(iter(server)),
)
def test_what_the_limiter_is_told_is_what_the_ledger_counts(server):
    """Whatever goes wrong, and with a concurrency that finds itself."""
    in_memory, by_turns = both_ways(1_000, None, None, **server)
    assert by_turns.began_at_ms == in_memory.began_at_ms
    assert len(by_turns.began_at_ms) > 300


class Recorded(Client):
    """Remembers when its calls began."""

    def __init__(self, *args):
        self.began_at_ms = []
        super().__init__(*args)

    def _start(self):
        self.began_at_ms.append(self._world.now_ms)
        super()._start()

    def ledger_draw(self):
        """Do nothing: it draws by itself."""
