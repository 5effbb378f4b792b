"""One seed is one history of a file: troubled lives of processes, and one in peace to the end.

Rule: the scheduler, the ledger, SQLite and the policy are the product's; all else is drawn by the
seed. What may happen is a method of `Life` that EVENTS names.
"""

import asyncio
import gc
import hashlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from crawler.policy import Policy
from crawler.run import loop as running
from crawler.run.ending import Reason, RunOptions
from crawler.run.session import crawl_store
from crawler.storage.store import open_store
from tests.simulation import loop as loops
from tests.simulation.disk import fast_folder
from tests.simulation.loop import Loop
from tests.simulation.machine import Machine, empty_file
from tests.simulation.oracle import Oracle
from tests.simulation.people import DEEDS, People
from tests.simulation.service import CALM, WINDOW_S, Service, Weather

POLICY = Policy(
    call_timeout_ms=10_000,
    drain_ms=5_000,
    lost_after_ms=20_000,
    patience_ms=40_000,
    backoff_cap_ms=8_000,
)
PATIENT = replace(POLICY, lost_after_ms=300_000)
"""Of those who give up nobody: who is frozen loses his places in the window, and no more."""
ENDINGS = frozenset(
    "finished failures stopped quota_day credentials configuration unreachable killed max_calls"
    " deadline".split()
)
POLL_MS = 1_000
"""Longer than the program's own: most of the time nothing happens."""
SPELLS = ("away", "errors", "storm", "day", "denied")
LAST_LIVES = 60
LAST_LIFE_S = 3_600.0
EVENTS = {
    "kill": 4,
    "kill_after_commit": 6,
    "freeze": 3,
    "freeze_for_long": 2,
    "freeze_with_leases": 2,
    "cancel": 2,
    "stop": 2,
    "set_clock": 2,
    "start_again": 1,
}
"""What may befall a process, and how often; beside what people do."""


ALL = EVENTS | DEEDS


class Told(NamedTuple):
    """What came of a seed."""

    seed: int
    broken: list[str]
    events: list[tuple[object, ...]]
    """The history."""
    calls: int
    virtual_s: float
    seen: dict[str, int]
    """Rare states, and how often they were reached."""

    def digest(self) -> str:
        """Return what tells this history from any other."""
        return hashlib.sha256(repr(self.events).encode()).hexdigest()[:16]


class _Heard:
    """A log that only counts what is said."""

    def __init__(self, see: Callable[[str], None]) -> None:
        self._see = see

    def info(self, event: str, **fields: object) -> None:
        del fields
        self._see(event)

    warning = info


class Life:
    """The history of one file."""

    def __init__(self, loop: Loop, seed: int, path: Path) -> None:
        self.loop, self.path = loop, path
        self.chance = random.Random(f"life {seed}")
        self.machine = Machine(loop)
        self.service = Service(loop, seed, self._weather())
        self.oracle = Oracle(path, self.service)
        self.people = People(path, self.machine, self.service, self.chance)
        self.seen: Counter[str] = Counter()
        self._processes = 0
        self._quiet_until_s = 0.0
        self._policy = self.chance.choice([POLICY, PATIENT])
        self._runs: dict[str, running.Loop] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        loop.on_kill.insert(0, self._killed)

    def _weather(self) -> Weather:
        chance = self.chance
        spells = []
        for kind in chance.choices(SPELLS, k=chance.choice([0, 0, 1, 2])):
            begins_at_s = self.loop.now_s + chance.uniform(0, 60)
            lasts_s = chance.choice([1, 10, 60, 300])
            spells.append((begins_at_s, begins_at_s + lasts_s, kind))
        return Weather(
            quota=chance.choice([None, None, 10, 25]),
            hints=chance.random() < 0.5,
            spells=tuple(spells),
        )

    async def live(self) -> None:
        """Live through some troubled lives, and then one in peace, to the end of all work."""
        self.people.do("make")
        for _ in range(self.chance.choice([1, 2, 2])):
            await self._trouble()
            self.oracle.look()
        self.service.weather = CALM
        await self._find_the_time()
        self.people.do("resume")
        await asyncio.wait_for(self._peace(), LAST_LIFE_S)
        self.oracle.look_at_end()
        self.seen["released"] += self.oracle.released()
        self.loop.note(*self.oracle.contents())

    async def _trouble(self) -> None:
        await self._find_the_time()
        names = [self._start() for _ in range(self.chance.choice([1, 2, 2]))]
        for _ in range(self.chance.choice([2, 4, 6])):
            await asyncio.sleep(self.chance.choice([0.02, 0.5, 3, 12]) * self.chance.random())
            (event,) = self.chance.choices(list(ALL), list(ALL.values()))
            await asyncio.sleep(max(0, self._quiet_until_s - self.loop.now_s))
            name = self.chance.choice(names)
            self.loop.note(event, name)
            self._see(event)
            if event in DEEDS:
                self.people.do(event)
            else:
                getattr(self, f"_{event}")(name)
        await asyncio.sleep(self.chance.choice([1, 20, 80]) * self.chance.random())
        for name in self._tasks:
            self.loop.kill(name)

    async def _peace(self) -> None:
        for _ in range(LAST_LIVES):
            name = self._start()
            await asyncio.wait([self._tasks[name]])
            if not self._unfinished():
                return
        self.oracle.broken.append(f"it does not come to an end in {LAST_LIVES} runs")

    async def _find_the_time(self) -> None:
        """Wait, where the program can't know how long ago its last calls were."""
        if self.machine.is_lost_in_time():
            await asyncio.sleep(WINDOW_S + 1)

    def _unfinished(self) -> int:
        sql = "SELECT count(*) FROM requests WHERE state IN ('pending', 'leased')"
        return int(self.oracle.ask(sql)[0][0])

    def _start(self) -> str:
        self._processes += 1
        name = f"process {self._processes}"
        self._tasks[name] = self.loop.start(name, self._program(name))
        return name

    async def _program(self, name: str) -> None:
        """Do what ``crawler run`` does, and be no more forgiving of what goes wrong."""
        try:
            async with open_store(self.path) as store:
                ending = await crawl_store(
                    store,
                    self._policy,
                    self._options(),
                    _Heard(self._see),
                    given={("scripted", "m"): self.service},
                    on_start=lambda run: self._runs.update({name: run}),
                    on_status=lambda status: None,
                )
        except asyncio.CancelledError:
            self._see("cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.oracle.broken.append(f"a process raised {type(error).__name__}: {error}")
        else:
            self.loop.note("ended", name, ending.reason)
            self._see(f"ended {ending.reason}")
            if ending.reason not in ENDINGS:
                self.oracle.broken.append(f"a run ended by {ending}")
        left = self.machine.open_databases(name), self.machine.held_locks(name)
        if left != (0, 0):
            self.oracle.broken.append(f"connections and locks left open: {left}")

    def _options(self) -> RunOptions:
        """Draw how far a run goes; in peace it goes all the way."""
        if self.service.weather is CALM:
            return RunOptions()
        max_calls = self.chance.choice([None] * 8 + [3])
        deadline_ms = self.chance.choice([None] * 8 + [5_000])
        return RunOptions(max_calls=max_calls, deadline_ms=deadline_ms)

    def _run_id(self, name: str) -> int | None:
        scope = getattr(self._runs.get(name), "_scope", None)
        return None if scope is None else scope.run_id

    def _killed(self, name: str) -> None:
        run_id = self._run_id(name)
        self.loop.note("killed", name)
        if run_id is not None:
            self.oracle.killed(run_id)

    def _see(self, what: str) -> None:
        self.seen[what] += 1

    def _kill(self, name: str) -> None:
        self.loop.kill(name)

    def _kill_after_commit(self, name: str) -> None:
        self.loop.jobs_to_live[name] = self.chance.randint(1, 25)

    def _freeze(self, name: str, for_s: float | None = None) -> None:
        run_id = self._run_id(name)
        if name in self.loop.dead or run_id is None:
            return
        self.loop.freeze(name)
        self.oracle.killed(run_id)
        self.loop.call_later(for_s or self.chance.choice([0.1, 1, 10]), self.loop.thaw, name)

    def _freeze_for_long(self, name: str) -> None:
        """Freeze it until the others have just given it up."""
        for_s = POLICY.lost_after_ms / 1000 + self.chance.uniform(1, 12)
        self._freeze(name, for_s)
        self._quiet_until_s = self.loop.now_s + for_s + self.chance.uniform(0, 5)

    def _freeze_with_leases(self, name: str) -> None:
        """Freeze it with leases in its hand until others may have taken their places."""
        run_id = self._run_id(name)
        if name in self.loop.dead or run_id is None:
            return
        self.oracle.frozen_soon(run_id)
        self._start()  # another one, and enough to do for it meanwhile
        self.people.do("add_many")
        for_s = self.chance.choice([1, WINDOW_S, WINDOW_S]) + self.chance.uniform(5, 45)
        self.loop.frost_s[name] = for_s
        self._quiet_until_s = self.loop.now_s + for_s + self.chance.uniform(0, 5)

    def _cancel(self, name: str) -> None:
        run_id = self._run_id(name)
        if name not in self.loop.dead and run_id is not None:
            self.oracle.stopped.add(run_id)
            self._tasks[name].cancel()

    def _stop(self, name: str) -> None:
        run_id = self._run_id(name)
        if name not in self.loop.dead and run_id is not None:
            self.oracle.polite.add(run_id)
            self._runs[name].stop(Reason.STOPPED)

    def _set_clock(self, name: str) -> None:
        del name
        self.machine.set_clock(self.chance.choice([-86_400, -3_600, -1, 2, 3_600, 86_400]))

    def _start_again(self, name: str) -> None:
        del name
        for other in self._tasks:
            self.loop.kill(other)
        if self.chance.random() < 0.5:  # the power went before the disk had written its name
            self.path.with_name(f"{self.path.name}-lock").unlink(missing_ok=True)
        self.machine.start_again()


def simulate(seed: int) -> Told:
    """Live through one seed. To be called in a process that ends without ado: see `loop.kill`."""
    gc.disable()  # the dead are not to be buried at a moment of its own choosing
    random.seed(seed)
    folder = Path(tempfile.mkdtemp(dir=fast_folder()))
    (folder / "c.db").write_bytes(empty_file())
    lives: list[Life] = []

    async def main(loop: Loop) -> None:
        lives.append(Life(loop, seed, folder / "c.db"))
        with lives[0].machine.installed():
            await lives[0].live()

    broken: list[str] = []
    try:
        with patch.object(running, "POLL_MS", POLL_MS):
            loops.run(main, seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        broken.append(f"{type(error).__name__}: {error}")
    life = lives[0]
    life.oracle.close()
    shutil.rmtree(folder)
    return Told(
        seed=seed,
        broken=[*broken, *life.oracle.broken, *life.service.broken],
        events=life.loop.events,
        calls=life.service.arrived.total(),
        virtual_s=life.loop.now_s - loops.BEGIN_S,
        seen=dict(life.seen),
    )
