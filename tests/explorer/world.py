"""The simulated processes and object store of a run, with the scheduler that controls them.

Each process is a thread, and only the one that holds the baton runs. Before each request it may
have to pass the baton on. Requests that a process sends side by side, or defers, are threads of
their own, in any order; they die with their process. A request may fail, may be carried out
although its response is lost, or may arrive long after its process died or gave up. The scheduler
also decides how much time passes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sessionstore.backends.objects.bucket import Waits
from sessionstore.backends.objects.client import NotFound
from sessionstore.errors import BackendUnavailable
from tests.explorer.choices import Choices
from tests.explorer.history import History, Op
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request

T = TypeVar("T")

GRACE: Final = timedelta(minutes=10)
START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)

STEPS: Final = (0.3, 1.0, 2.2, 55.0, 65.0, 245.0, 295.0, 305.0, 535.0, 545.0, 599.0, 602.0, 700.0)
"""Seconds that may pass in one step: around the store's resolution, the margin (60), half of the
grace (300), the window (540) and the grace (600)."""

LONG_STEPS: Final = (*STEPS, 12.1 * 3600, 24.1 * 3600)
"""``STEPS`` and the steps around the limits of multipart uploads."""

_CHANGES = frozenset(("PUT", "DELETE", "POST", "PART", "ABORT"))


MakeBucket = Callable[[Callable[[], datetime]], FakeBucket]
"""Creates the empty store of a run from its clock; a replacement may use a real server."""


class Crash(BaseException):
    """The process was killed: each further request raises again, whatever the code catches."""


@dataclass(slots=True, eq=False)
class Process:
    """One process, or one thread of it: a script, and the baton that it waits for.

    A thread has the ``main`` one of its process, and a share in that one's operation ``op``. A
    process does not run while it ``awaits`` its threads.
    """

    name: str
    script: Callable[[], None]
    main: Process | None = None
    op: Op | None = None
    baton: threading.Lock = field(default_factory=threading.Lock)
    done: bool = False
    killed: bool = False
    awaits: list[Process] = field(default_factory=list)

    @property
    def dead(self) -> bool:
        return self.killed or (self.main is not None and self.main.dead)

    @property
    def ready(self) -> bool:
        """Whether it may run now."""
        return not self.done and all(thread.done for thread in self.awaits)

    def die(self) -> None:
        self.killed = True
        if self.main is not None:
            self.main.die()


@dataclass(slots=True, eq=False)
class Late:
    """A late request: no process waits for it, but its ``op`` may still take effect."""

    label: str
    parts: list[Callable[[], object]]
    op: Op | None


@dataclass(frozen=True, slots=True)
class Manners:
    """The scheduler's settings in one run: probabilities per request, and the most faults.

    ``slow`` is the probability that other processes run between a request and its response. With
    ``splits`` they may also run between the deletions of one request.
    """

    switch: float
    time: float
    steps: tuple[float, ...]
    fault: float
    faults: int
    slow: float
    splits: bool


class World:
    """The store, the clock, the processes and the choices of one run."""

    def __init__(
        self, choices: Choices, *, tracing: bool = False, make_bucket: MakeBucket = FakeBucket
    ) -> None:
        self.choices = choices
        self.now = START
        self.bucket = make_bucket(lambda: self.now)
        self.history = History()
        self.trace: list[str] = []
        self.errors: list[str] = []
        self.processes: list[Process] = []
        self.late: list[Late] = []
        self.tracing = tracing
        self.manners = Manners(0, 0, STEPS, 0, 0, 0, splits=False)
        self.history.time_is(START)
        self.running: Process | None = None
        """The process or thread with the baton."""
        self._crew = Crew()
        self._faults = 0
        self._ended = threading.Lock()

    # Time

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.history.time_is(self.now)
        self.note("time", f"+{seconds:g} s")

    def note(self, process: str, event: str) -> None:
        if self.tracing:
            self.trace.append(f"{process}: {event}")

    # Running

    def run(self, crew: Crew) -> None:
        """Let every process run to its end, one at a time."""
        self._ended.acquire()
        self._crew = crew
        for process in self.processes:
            crew.assign(process, self)
        if self.processes:
            self.choices.pick(self.processes).baton.release()
            self._ended.acquire()
        self._ended.release()

    def deliver_all(self) -> None:
        """Deliver all late requests."""
        while self.late:
            self._deliver()

    def live(self, process: Process) -> None:
        """Run a process from start to end, in its own thread."""
        self.running = process
        try:
            process.script()
        except Crash:
            if process.op is not None:
                self.history.fail(process.op)
        except Exception as error:  # noqa: BLE001 - any other error is a violation to report
            self.errors.append(f"{process.name} raised {type(error).__name__}: {error}")
        process.done = True
        if not self._pass_on(process):
            self._ended.release()

    def _pass_on(self, process: Process) -> bool:
        """Give the baton to another process that may run; return whether there is one."""
        others = [other for other in self.processes if other.ready and other is not process]
        if others:
            self.choices.pick(others).baton.release()
        return bool(others)

    def side_by_side(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run the tasks of the running process in threads of their own, and wait for them all."""
        process = self.running
        assert process is not None, "a process is running"  # for mypy
        ends: list[Any] = [None] * len(tasks)
        errors: list[BaseException] = []

        def run(number: int) -> None:
            try:
                ends[number] = tasks[number]()
            except (Exception, Crash) as error:  # noqa: BLE001 - raised below
                errors.append(error)

        process.awaits = [
            self._begin(process, f"{process.name}.{number}", lambda number=number: run(number))  # type: ignore[misc]  # mypy cannot type the default
            for number in range(len(tasks))
        ]
        self._pass_on(process)
        process.baton.acquire()
        self.running = process
        if process.dead:
            raise Crash
        if errors:
            raise errors[0]
        return ends

    def defer(self, task: Callable[[], object]) -> None:
        """Run a task of the running process some time later, as part of no operation."""
        process = self.running
        assert process is not None, "a process is running"  # for mypy

        def run() -> None:
            with suppress(Crash):
                task()

        self._begin(process, f"{process.name}.later", run).op = None

    def _begin(self, process: Process, name: str, script: Callable[[], None]) -> Process:
        thread = Process(name, script, process, process.op)
        self.processes.append(thread)
        self._crew.assign(thread, self)
        return thread

    def _turn(self, process: Process, *, eager: float) -> None:
        """Perhaps let time pass, deliver a late request, or run another process first."""
        choices, manners = self.choices, self.manners
        if choices.chance(manners.time):
            self.pass_time(choices.pick(manners.steps))
        if self.late and choices.chance(0.05):
            self._deliver()
        if choices.chance(min(manners.switch * eager, 1)) and self._pass_on(process):
            process.baton.acquire()
            self.running = process

    def _deliver(self) -> None:
        """Deliver one late request, or one key of a late delete."""
        late = self.choices.pick(self.late)
        self.note("late", late.label)
        with suppress(NotFound):  # a part of an upload that was completed or aborted
            late.parts.pop(0)()
        if not late.parts:
            self.late.remove(late)
            if late.op is not None:
                late.op.settled(self.history)

    # Requests

    def carry_out(self, request: Request[T]) -> Answer[T]:
        """Carry out one request of the running process, or make it fail."""
        process = self.running
        assert process is not None, "a process is running"  # for mypy
        if process.dead:
            raise Crash
        changes = request.verb in _CHANGES
        eager = 2.0 if changes else 1.0  # two runs differ mostly by the order of their changes
        self._turn(process, eager=eager)
        if process.dead:  # by another thread of it
            raise Crash
        if self._faults < self.manners.faults and self.choices.chance(self.manners.fault * eager):
            self._faults += 1
            return self._fail(process, request, changes=changes)
        answer = self._apply(process, request, "")
        if self.choices.chance(self.manners.slow):
            self._turn(process, eager=4.0)
        return answer

    def _apply(self, process: Process, request: Request[T], how: str) -> Answer[T]:
        label = self._label(request)
        if request.verb == "DELETE" and len(request.keys) > 1 and self.manners.splits:
            for key in request.keys[:-1]:
                self.note(process.name, f"DELETE {key} (one of {len(request.keys)}){how}")
                self.bucket.delete([key])
                self._turn(process, eager=1.0)
            label = f"DELETE {request.keys[-1]} (the last){how}"
        self.note(process.name, f"{label}{how}")
        return self.bucket.carry_out(request)

    def _fail(self, process: Process, request: Request[T], *, changes: bool) -> Answer[T]:
        """Inject a fault: the process dies or gets an error; the request is done, lost or late."""
        dies = self.choices.chance(0.5)
        fate = self.choices.below(3) if changes else 0
        how = ", and dies" if dies else ", and gets an error"
        if fate == 0:
            self.note(process.name, f"{self._label(request)} is lost{how}")
        elif fate == 1:
            self._apply(process, request, f", its response is lost{how}")
        else:
            self.note(process.name, f"{self._label(request)} is late{how}")
            self.late.append(Late(self._label(request), self._parts(request), process.op))
            if process.op is not None:
                process.op.pending += 1
        if dies:
            process.die()
            raise Crash
        raise BackendUnavailable("The explorer made this request fail.")

    def _parts(self, request: Request[T]) -> list[Callable[[], object]]:
        if request.verb != "DELETE":
            return [request.apply]
        return [lambda key=key: self.bucket.delete([key]) for key in request.keys]  # type: ignore[misc]  # mypy cannot type the default

    def _label(self, request: Request[T]) -> str:
        return f"{request.verb} {', '.join(request.keys)}"


class ProcessClient(FakeObjectClient):
    """The object client of one process: requests go to the scheduler, except while ``asleep``."""

    def __init__(self, world: World, page_size: int) -> None:
        super().__init__(world.bucket, page_size=page_size)
        self.asleep = False
        self._world = world

    def send(self, request: Request[T]) -> Answer[T]:
        if self.asleep:
            return super().send(request)
        self.requests[request.verb] += 1
        return self._world.carry_out(request)


class Threads(Waits):
    """The threads of one process in the world."""

    def __init__(self, world: World) -> None:
        super().__init__(parallel=True)
        self._world = world

    def together(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(tasks) < 2:
            return [task() for task in tasks]
        return self._world.side_by_side(tasks)

    def later(self, task: Callable[[], object]) -> None:
        self._world.defer(task)


class Crew:
    """A pool of threads that run processes: starting a new thread takes 100 microseconds."""

    def __init__(self) -> None:
        self._idle: list[_Hand] = []

    def assign(self, process: Process, world: World) -> None:
        """Let a thread of the pool wait for the baton of a process and then run the process."""
        process.baton.acquire()
        hand = self._idle.pop() if self._idle else _Hand(self._idle)
        hand.take(lambda: self._live(process, world))

    def _live(self, process: Process, world: World) -> None:
        process.baton.acquire()
        world.live(process)


class _Hand:
    """One thread of the pool."""

    def __init__(self, idle: list[_Hand]) -> None:
        self._idle = idle
        self._work = threading.Lock()
        self._work.acquire()
        self._job: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, daemon=True).start()

    def take(self, job: Callable[[], None]) -> None:
        self._job = job
        self._work.release()

    def _run(self) -> None:
        while True:
            self._work.acquire()
            self._job()
            self._idle.append(self)
