"""Engines: who trains the plans of a zoo; one single-threaded process a core, or stacks on a GPU."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from weightspace.zoo.records import TrainedNetwork, TrainingPlan

Plans = Sequence[TrainingPlan]
Write = Callable[[int, Sequence[TrainedNetwork]], None]
"""Takes a shard's number and its networks in the order of their plans; a `ProcessEngine` needs one that pickles."""


class EngineError(ValueError):
    """An engine that cannot run, or that lost a worker."""


@runtime_checkable
class Engine(Protocol):
    """Trains whole shards. The plans decide what comes out; the engine decides only how fast."""

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
    """One single-threaded process a core, each training one network at a time (measured fastest on CPUs).

    Attributes:
        workers: processes; None for one a core this process may use. 0 trains in this process.
    """

    workers: int | None = None

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        workers = len(os.sched_getaffinity(0)) if self.workers is None else self.workers
        workers = min(workers, len(shards))
        if workers == 0:
            _threads(1)
            for number, plans in shards.items():
                write(number, [_one(plan, advance) for plan in plans])
            return
        context = multiprocessing.get_context("spawn")  # forked children of a threaded process can hang
        counter = context.Value("q", 0)
        pool = ProcessPoolExecutor(workers, context, _prepare_worker, (counter, os.getpid()))
        try:
            waiting = {pool.submit(_shard, number, plans, write) for number, plans in shards.items()}
            reported = 0
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                advance(counter.value - reported)
                reported = counter.value
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process died, perhaps for lack of memory: run the same command again, it goes on with the "
                "shards that are missing; fewer --workers need less memory"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class StackedEngine:
    """Hundreds of like networks stacked into one vectorised step: for GPUs, where it is far faster than a loop.

    A shard's plans are grouped by architecture, images, batch size and epochs; each group trains as stacks.

    Attributes:
        device: "cuda", "cuda:1", ... or "cpu", where it is slow and serves tests.
        stack: most networks in one stack; less if memory runs short.
    """

    device: str = "cuda"
    stack: int = 512

    def run(self, shards: Mapping[int, Plans], write: Write, advance: Callable[[int], None]) -> None:
        import torch

        from weightspace.zoo.trained import stack_key, train_networks

        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise EngineError("this machine has no CUDA GPU: use the engine `process`")
        for number, plans in shards.items():
            groups: dict[tuple[object, ...], list[int]] = {}
            for i, plan in enumerate(plans):
                groups.setdefault(stack_key(plan), []).append(i)
            trained: dict[int, TrainedNetwork] = {}
            for places in groups.values():
                for start in range(0, len(places), self.stack):
                    block = places[start : start + self.stack]
                    results = train_networks([plans[i] for i in block], self.device)
                    trained.update(zip(block, results, strict=True))
                    advance(len(block))
            write(number, [trained[i] for i in range(len(plans))])


def engine_of(name: str, *, workers: int | None = None, device: str = "cuda", stack: int = 512) -> Engine:
    """The engine `name`: "process", or "stacked" (on a GPU).

    Raises:
        EngineError: on an unknown name or a negative number of workers.
    """
    if name not in ("process", "stacked") or (workers is not None and workers < 0) or stack < 1:
        raise EngineError(
            f"engine {name!r} with {workers} workers and stacks of {stack}: choose process (0 or more workers) or "
            "stacked (at least 1)"
        )
    return ProcessEngine(workers=workers) if name == "process" else StackedEngine(device=device, stack=stack)


def seconds_a_network(plan: TrainingPlan) -> float:
    """An estimate of how long this plan trains alone on one thread, from a few of its steps."""
    from weightspace.zoo.images import load_images
    from weightspace.zoo.trained import train_networks

    _threads(1)
    steps = min(10, max(1, 2000 // plan.batch_size))
    probe = replace(plan, epochs=1, image_count=steps * plan.batch_size, test_count=100)
    train_networks([probe])  # warm caches
    start = time.perf_counter()
    train_networks([probe])
    elapsed = time.perf_counter() - start
    images = plan.image_count or len(load_images(plan.images, plan.data).train_labels)
    return elapsed * plan.epochs * max(1, images // plan.batch_size) / steps


def _one(plan: TrainingPlan, advance: Callable[[int], None]) -> TrainedNetwork:
    from weightspace.zoo.trained import train_networks

    trained = train_networks([plan])[0]
    advance(1)
    return trained


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


_counter: Any = None


def _count(networks: int) -> None:
    with _counter.get_lock():
        _counter.value += networks


def _prepare_worker(counter: Any, parent: int) -> None:
    """Make this worker single-threaded, and end it when its parent is gone, however the parent ended."""
    global _counter
    _counter = counter
    _threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _shard(number: int, plans: Plans, write: Write) -> None:
    write(number, [_one(plan, _count) for plan in plans])
