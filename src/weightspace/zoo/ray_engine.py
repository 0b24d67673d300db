"""The engine `ray`: shards as jobs of a Ray cluster; the job of a worker or a node that dies is given out again."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, no_type_check

from weightspace import __version__
from weightspace.files.extras import install_command
from weightspace.files.workers import WorkerError
from weightspace.zoo.engine import Plans, Write, seconds_a_network, training
from weightspace.zoo.records import TrainedNetwork

ANSWER = 20.0
"""Seconds in which a cluster has to answer at its address."""
REPORT = 2.0
"""Seconds between two reports of a job: thousands of jobs must not flood the one process that listens."""
RECOUNT = 5.0
"""Seconds between two looks at which nodes there are."""
DESERTED = 300.0
"""Seconds for which a run waits for a node to come back when none is left that could do a job."""

_ours = False
"""Whether the connection to Ray, one a process, was made here, and so is ours to end."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Jobs of one shard each on the nodes of a Ray cluster, and their networks back to this process, which writes them.

    Only this process touches the zoo: nodes need no common file system, and one that is cut off and goes on working
    spoils nothing. Each node needs the same versions of weightspace and torch, and the images.

    Its networks are those of the `ProcessEngine` with the same stack, byte for byte, or with `gpus` those of a
    `StackedEngine`; as far as the processors of the nodes round alike.

    Attributes:
        address: HOST:PORT of the cluster; "auto" for the one that this machine belongs to; "local" for one of this
            machine alone, which ends with the run; None for what RAY_ADDRESS says, else "auto", else "local".
        cpus: CPU cores that a job takes, for its memory: it computes on one.
        gpus: GPUs that a job takes, perhaps a fraction; with any the job trains on "cuda".
        jobs: most jobs given out at a time; None for twice what the nodes can do at a time.
        stack: most networks in one vectorised step; None for 1 on CPUs and 512 on GPUs.
        retries: how often a shard is given out again because its worker or node died.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    jobs: int | None = None
    stack: int | None = None
    retries: int = 3

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def most(self) -> int:
        """Most networks in one stack."""
        return self.stack or (512 if self.gpus else 1)

    @property
    def arithmetic(self) -> dict[str, Any]:
        return {"device": self.device, "stack": self.most}

    def check(self) -> None:
        """Connect to the cluster, unless this process is connected already, and see that a job fits on a node.

        Raises:
            WorkerError: if Ray is not installed, nothing answers at the address, or no node could do a job.
        """
        jobs = 1 if self.jobs is None else self.jobs
        if not (min(self.cpus, self.gpus) >= 0 < self.cpus + self.gpus) or jobs < 1 or self.retries < 0:
            raise WorkerError(
                f"jobs of {self.cpus:g} CPUs and {self.gpus:g} GPUs, {jobs} at a time, {self.retries} retries: a job "
                "takes CPUs or GPUs, and at least one job runs at a time"
            )
        _connect(self.address)
        if not self._room():
            self.close()
            raise WorkerError(
                f"no node of the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs for a job: ask for less with "
                "--cpus and --gpus, or start such a node first"
            )

    def close(self) -> None:
        global _ours
        if _ours:
            _ray().shutdown()
            _ours = False

    def _room(self) -> int:
        """How many jobs the living nodes can do at a time."""
        total = 0
        for node in _ray().nodes():
            if node["Alive"]:
                wanted = (("CPU", self.cpus), ("GPU", self.gpus))
                fits = [node["Resources"].get(kind, 0) / amount for kind, amount in wanted if amount]
                total += math.floor(min(fits) + 1e-9)
        return total

    def _remote(self, function: Callable[..., Any], **options: Any) -> Any:
        """A function as Ray runs it; Ray itself retries nothing, so that what is lost is counted in one place."""
        wanted = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0, **options}
        return _ray().remote(**wanted)(function)

    def seconds(self, shards: Mapping[int, Plans]) -> float:
        plans = next(iter(shards.values()))
        arguments = (_anywhere(plans), self.most, self.device, _versions())
        try:
            with _sentences():
                each = _ray().get(self._remote(_probe, max_retries=self.retries).remote(*arguments))
        except _Lost as error:
            raise WorkerError(
                f"the first job, which tells how long the run will take, was lost {self.retries + 1} times, at last "
                f"because {error}: nothing is made yet; where memory is short give each job more of a node with --cpus"
            ) from error
        return each * sum(map(len, shards.values())) / max(1, min(self._room(), len(shards)))

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        self.check()
        ray = _ray()
        job = self._remote(_job, num_returns="streaming")
        waiting, running = deque(shards), dict[Any, int]()
        lost, reported = Counter[int](), Counter[int]()
        written: set[int] = set()  # a job may tell of all its networks and be lost before they are here
        room = _Room(self._room)
        try:
            while waiting or running:
                while waiting and len(running) < (self.jobs or 2 * max(1, room.now())):
                    number = waiting.popleft()
                    stream = job.remote(_anywhere(shards[number]), self.most, self.device, _versions())
                    running[stream] = number
                room.now()
                ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                if ready:
                    ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                advance(0)
                for stream in ready:
                    number = running[stream]
                    try:
                        with _sentences():
                            step = ray.get(next(stream))
                    except StopIteration:  # the job has ended; a stream dropped before would be cancelled
                        del running[stream]
                        continue
                    except _Lost as error:
                        del running[stream]
                        if number not in written:
                            lost[number] += 1
                            if lost[number] > self.retries:
                                raise WorkerError(_used_up(number, lost[number], str(error))) from error
                            waiting.append(number)
                        continue
                    if not isinstance(step, int):
                        write(number, step)
                        written.add(number)
                        step = len(step)
                    # a shard that is made again tells of networks a second time
                    advance(max(0, step - reported[number]))
                    reported[number] = max(step, reported[number])
        finally:
            for stream in running:
                with suppress(Exception):  # the cluster may be what has failed
                    ray.cancel(stream, force=True)


class _Lost(Exception):
    """A job whose worker or node died; why, in words."""


class _Room:
    """What the nodes can do at a time, looked up now and then."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.count = count
        self.room = count()
        self.looked = self.last = time.monotonic()

    def now(self) -> int:
        """How many jobs.

        Raises:
            WorkerError: if there has been no node for any for long.
        """
        if (now := time.monotonic()) - self.looked > RECOUNT:
            self.room, self.looked = self.count(), now
            if self.room:
                self.last = now
            elif now - self.last > DESERTED:
                raise WorkerError(
                    f"no node has been left for {DESERTED:.0f} s that could do a job: start nodes and run the same "
                    "command again, it goes on with the shards that are missing"
                )
        return self.room


def _used_up(number: int, times: int, why: str) -> str:
    return (
        f"shard {number} was given out {times} times and lost each time, at last because {why}: finished shards are "
        "kept; where memory is short give each job more of a node with --cpus, then run the same command again, it "
        "goes on with the shards that are missing"
    )


@contextmanager
def _sentences() -> Iterator[None]:
    """What Ray raises as a sentence; what a job raised as it was raised there.

    Raises:
        _Lost: if the job may succeed elsewhere.
        WorkerError: if it will not.
    """
    from ray import exceptions

    reasons = {
        exceptions.OutOfMemoryError: "its node ran out of memory",
        exceptions.NodeDiedError: "its node died",
        exceptions.ObjectLostError: "its node died before what it made was fetched",
        exceptions.WorkerCrashedError: "its worker died, perhaps for lack of memory",
    }
    try:
        yield
    except tuple(reasons) as error:
        raise _Lost(next(reason for kind, reason in reasons.items() if isinstance(error, kind))) from error
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError | ImportError | MemoryError):
            raise error.cause from error
        raise WorkerError(f"a job failed ({_last_line(error.cause or error)}): {_NODES}") from error
    except exceptions.RayError as error:
        raise WorkerError(f"Ray failed ({_last_line(error)}): finished shards are kept, {_AGAIN}") from error


_AGAIN = "run the same command again"
_NODES = "see that every node has the same weightspace and Ray, then " + _AGAIN


def _last_line(error: BaseException) -> str:
    """Kind and last line of an error: Ray's messages are pages long, and end with what matters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


# -- on the nodes -----------------------------------------------------------------------------------------------------


@no_type_check  # the check of the tests would wrap it, and Ray takes streams from bare generators alone
def _job(
    plans: Plans, stack: int, device: str, versions: tuple[str, str]
) -> Generator[int | list[TrainedNetwork], None, None]:
    """Train a shard; yield now and then how many networks are done, and at last the networks."""
    _prepare(device, versions)
    steps = training(plans, stack, device)
    done, told = 0, time.monotonic()
    while True:
        try:
            done += next(steps)
        except StopIteration as end:
            yield end.value
            return
        if time.monotonic() - told > REPORT:
            yield done
            told = time.monotonic()


def _probe(plans: Plans, stack: int, device: str, versions: tuple[str, str]) -> float:
    """Seconds a network on this node."""
    _prepare(device, versions)
    return seconds_a_network(plans, stack, device)


def _prepare(device: str, versions: tuple[str, str]) -> None:
    """Make this worker single-threaded, and refuse one whose networks would not be those of the other nodes."""
    import torch

    if _versions() != versions:
        here, wanted = (" and torch ".join(pair) for pair in (_versions(), versions))
        raise WorkerError(
            f"node {socket.gethostname()} has weightspace {here}, the run was started with {wanted}: install the same "
            "on every node, or the networks would differ from node to node"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise WorkerError(f"torch finds no CUDA GPU on node {socket.gethostname()}: install a build of torch for it")
    torch.set_num_threads(1)


def _versions() -> tuple[str, str]:
    """Versions of weightspace and torch; builds of torch for other devices are taken for one."""
    import torch

    return __version__, torch.__version__.split("+")[0]


def _anywhere(plans: Plans) -> Plans:
    """The plans with the folder of their images as a whole path: a worker stands in another folder."""
    return [plan if plan.data is None else replace(plan, data=str(Path(plan.data).resolve())) for plan in plans]


# -- the connection ---------------------------------------------------------------------------------------------------


def _ray() -> Any:
    """Ray, loaded at its first use: a second that nobody else should wait for.

    Raises:
        WorkerError: if it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise WorkerError(f"the engine ray needs Ray: {install_command('ray')}") from None
    return ray


def _connect(address: str | None) -> None:
    """Connect this process to a cluster, unless it is connected.

    Raises:
        WorkerError: if that cannot be done, within ANSWER seconds where nothing answers.
    """
    global _ours
    ray = _ray()
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        _await_answer(address)
    # Ray's handler of SIGTERM would end the process without a word, and without letting go of the zoo in order
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        ray.init(address, **quiet)
        _ours = True
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        with suppress(Exception):
            ray.shutdown()
        raise WorkerError(
            f"Ray cannot be joined at {address or 'this machine'} ({_last_line(error)}): run this on a node of the "
            "cluster, see that `ray status` answers there, and that Ray is of the same version everywhere; where `ray "
            "start` said that it wants tokens, set RAY_AUTH_MODE=token here too"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


def _await_answer(address: str) -> None:
    """Whether a Ray cluster can be at an address: Ray itself tries for minutes, and Ctrl-C does not end that.

    A cluster's head speaks HTTP/2: it answers a greeting with its settings.

    Raises:
        WorkerError: if none can.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or int(port) > 65535:
        raise WorkerError(
            f"{address!r} is no address of a Ray cluster: give HOST:PORT, auto or local, on a node of the cluster"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
                frame = line.recv(9)
                if frame[3:4] != b"\4":
                    raise OSError("what answers there is not Ray")
    except OSError as error:
        why = (
            f"nothing answers within {ANSWER:.0f} s"
            if isinstance(error, TimeoutError)
            else (error.strerror or str(error)).lower()
        )
        raise WorkerError(
            f"no Ray cluster at {address} ({why}): start one with `ray start --head`, or see what `ray status` says"
        ) from None
