"""Engines by name, with the options that each takes."""

from __future__ import annotations

from weightspace.files.workers import WorkerError
from weightspace.zoo.engine import Engine, ProcessEngine, StackedEngine
from weightspace.zoo.ray_engine import RayEngine


def engine_of(
    name: str,
    *,
    workers: int | None = None,
    device: str = "cuda",
    stack: int | None = None,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> Engine:
    """The engine `name`: "process", "stacked" (on a GPU) or "ray" (on a cluster); None leaves an engine's own choice.

    Args:
        address, cpus, gpus: of the engine "ray", see `RayEngine`.
    Raises:
        WorkerError: on an unknown name, a negative number of workers, an empty stack or an option of another engine.
    """
    if name not in ("process", "stacked", "ray"):
        raise WorkerError(f"there is no engine {name!r}: choose process, stacked or ray")
    if workers is not None and workers < 0:
        raise WorkerError(
            f"--workers {workers} is no number of processes: give 0 or more, or leave it out for one a core"
        )
    if stack is not None and stack < 1:
        raise WorkerError(f"--stack {stack} is no number of networks: give 1 or more, or leave it out")
    if name == "ray":
        return RayEngine(
            address=address, cpus=1.0 if cpus is None else cpus, gpus=gpus or 0.0, jobs=workers, stack=stack
        )
    for option, value in (("--address", address), ("--cpus", cpus), ("--gpus", gpus)):
        if value is not None:
            raise WorkerError(f"{option} says nothing to the engine {name}: leave it out, or choose --engine ray")
    if name == "process":
        return ProcessEngine(workers=workers, stack=stack or 1)
    return StackedEngine(device=device, stack=stack or 512)
