"""Engines: who trains the plans of a zoo; a single-threaded process a core, stacks on a GPU, or a cluster by name."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from weightspace.files.workers import WorkerError, cores, processes
from weightspace.threads import one_thread
from weightspace.zoo.records import TrainedNetwork, TrainingPlan

T = TypeVar("T")
Plans = Sequence[TrainingPlan]
Write = Callable[[int, Sequence[TrainedNetwork]], None]
"""Takes a shard's number and its networks in the order of their plans; a `ProcessEngine` needs one that pickles."""


@runtime_checkable
class Engine(Protocol):
    """Trains whole shards. The plans decide what comes out; the engine decides how fast, and the last bits."""

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What of the engine decides the rounding of the weights: a zoo is made with one and the same."""
        ...

    def check(self) -> None:
        """Raise an WorkerError if it cannot run here; take hold of what it needs to run."""
        ...

    def close(self) -> None:
        """Let go of what `check` took hold of, however the run ended; called once or more."""
        ...

    def seconds(self, shards: Mapping[int, Plans]) -> float:
        """An estimate of how long `run` will take, from a few steps of the first networks."""
        ...

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        """Train every plan of every shard and hand each finished shard to `write`, in any order.

        Args:
            shards: plans by shard number.
            write: called once for each shard, perhaps in another process.
            advance: called in this process with the number of networks done since the last call.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ProcessEngine:
    """Single-threaded processes on the CPU, one a core.

    Attributes:
        workers: processes; None for one a core this process may use. 0 trains in this process.
        stack: most networks that a process trains in one vectorised step. At 1 each network is trained alone and can
            be made again alone, bit for bit. More is faster where networks are so small that the work around each
            operation outweighs it (the digits recipe; `benchmarks/zoo.py`), and rounds differently.
    """

    workers: int | None = None
    stack: int = 1

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def arithmetic(self) -> dict[str, Any]:
        return {"device": "cpu", "stack": self.stack}

    def seconds(self, shards: Mapping[int, Plans]) -> float:
        with one_thread():
            each = seconds_a_network(next(iter(shards.values())), self.stack, "cpu")
        return each * sum(map(len, shards.values())) / max(1, self._processes(shards))

    def _processes(self, shards: Mapping[int, Plans]) -> int:
        return min(cores() if self.workers is None else self.workers, len(shards))

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        workers = self._processes(shards)
        if workers == 0:
            with one_thread():
                for number, plans in shards.items():
                    write(number, _train(plans, self.stack, "cpu", advance))
            return
        context = multiprocessing.get_context("spawn")  # forked children of a threaded process can hang
        counter = context.Value("q", 0)
        with processes(workers, _prepare_trainer, (counter,)) as (pool, _):
            finished: queue.SimpleQueue[Future[None]] = queue.SimpleQueue()
            for number, plans in shards.items():
                pool.submit(_shard, number, plans, self.stack, write).add_done_callback(finished.put)
            left, reported = len(shards), 0
            while left:
                with suppress(queue.Empty):
                    finished.get(timeout=0.2).result()
                    left -= 1
                trained = counter.value  # read once: it moves on meanwhile
                advance(trained - reported)
                reported = trained


@dataclass(frozen=True, kw_only=True)
class StackedEngine:
    """Hundreds of like networks in one vectorised step: for GPUs, where a loop leaves most of the device idle.

    A stack never reaches beyond a shard, so that a resumed run stacks as the first one did: give the zoo shards of
    thousands of networks (`--shard-size 2048`), since only those of one architecture and batch size are alike.

    Its networks are those of the `ProcessEngine` up to rounding: on CPU tensors, after two steps of every family, at
    least 99.8% of the weights agree to a relative 1e-3 or an absolute 2e-5 (`tests/zoo/test_networks.py` says what
    the others are). Training amplifies rounding, so after many steps they are equals, not twins.

    Attributes:
        device: "cuda", "cuda:1", ... or "cpu".
        stack: most networks in one stack.
    """

    device: str = "cuda"
    stack: int = 512

    def seconds(self, shards: Mapping[int, Plans]) -> float:
        each = seconds_a_network(next(iter(shards.values())), self.stack, self.device)
        return each * sum(map(len, shards.values()))

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        self.check()
        for number, plans in shards.items():
            write(number, _train(plans, self.stack, self.device, advance))

    def close(self) -> None:
        pass

    def check(self) -> None:
        import torch

        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = "unknown"
        if kind not in ("cpu", "cuda"):
            raise WorkerError(f"there is no device {self.device!r}: choose cuda, cuda:0, cuda:1, ... or cpu")
        if kind == "cuda" and not torch.cuda.is_available():
            raise WorkerError("this machine has no CUDA GPU: use the engine `process`")

    @property
    def arithmetic(self) -> dict[str, Any]:
        return {"device": self.device.split(":")[0], "stack": self.stack}


def training(plans: Plans, stack: int, device: str) -> Generator[int, None, list[TrainedNetwork]]:
    """Train the plans of one shard, those of one shape of training together; yield the size of each stack as it ends.

    Returns:
        the networks in the order of their plans.
    Raises:
        WorkerError: if the device runs out of memory.
    """
    import torch

    from weightspace.zoo.derivation import make_networks
    from weightspace.zoo.training import stack_key

    groups: dict[tuple[object, ...], list[int]] = {}
    for i, plan in enumerate(plans):
        groups.setdefault(stack_key(plan), []).append(i)
    blocks = [places[i : i + stack] for places in groups.values() for i in range(0, len(places), stack)]
    trained: dict[int, TrainedNetwork] = {}
    for block in blocks:
        try:
            results = make_networks([plans[i] for i in block], device)
        except torch.OutOfMemoryError as error:
            raise WorkerError(
                f"the memory of {device} ran out with stacks of up to {stack} networks: use a smaller --stack"
            ) from error
        trained.update(zip(block, results, strict=True))
        yield len(block)
    return [trained[i] for i in range(len(plans))]


def _train(plans: Plans, stack: int, device: str, advance: Callable[[int], None]) -> list[TrainedNetwork]:
    """Train the plans of one shard to the end, saying how many networks are done."""
    steps = training(plans, stack, device)
    while True:
        try:
            advance(next(steps))
        except StopIteration as end:
            return end.value


def seconds_a_network(plans: Plans, stack: int, device: str) -> float:
    """How long a network of these plans takes: the mean over five shapes of training, from a few steps of each."""
    from weightspace.zoo.training import stack_key

    shapes: dict[tuple[object, ...], list[TrainingPlan]] = {}
    for plan in plans:
        shapes.setdefault(stack_key(plan), []).append(plan)
    probed = list(shapes.values())[:5]
    return sum(_probe(like[:stack], device) for like in probed) / len(probed)


def _probe(like: Plans, device: str) -> float:
    """Seconds a network, from a few steps of plans of one shape of training."""
    from weightspace.zoo.images.loading import load_images
    from weightspace.zoo.training import train_networks

    first = like[0]
    images = first.image_count or len(load_images(first.images, first.data).train_labels)
    steps = max(1, min(10, 2000 // first.batch_size, images // first.batch_size))
    few = min(images, steps * first.batch_size)
    probes = [replace(plan, epochs=1, checkpoints=(), image_count=few, test_count=100) for plan in like]
    train_networks(probes, device)  # warm caches
    start = time.perf_counter()
    train_networks(probes, device)
    elapsed = time.perf_counter() - start
    return elapsed / len(like) * first.epochs * max(1, images // first.batch_size) / steps


_counter: Any = None


def _count(networks: int) -> None:
    with _counter.get_lock():
        _counter.value += networks


def _prepare_trainer(counter: Any) -> None:
    """Make this worker single-threaded, and let it count the networks it has trained."""
    import torch

    global _counter
    _counter = counter
    torch.set_num_threads(1)


def _shard(number: int, plans: Plans, stack: int, write: Write) -> None:
    write(number, _train(plans, stack, "cpu", _count))
