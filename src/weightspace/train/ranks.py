"""Several processes that train one model, as torchrun starts them: who takes which part of a batch, and their sums."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from weightspace.errors import WeightspaceError
from weightspace.train.config import Device
from weightspace.train.launch import Launch

WAIT = 600.0
"""Seconds after which a process that answers nothing counts as lost."""


class RanksError(WeightspaceError):
    """Processes that cannot train together, or one that was lost."""


@dataclass(frozen=True)
class Part:
    """One of the parts that a batch is cut into.

    Attributes:
        index: which, from 0.
        of: how many there are, at least 1.
    """

    index: int
    of: int

    def rows(self, count: int) -> slice:
        """Which of `count` examples are in it: the parts are consecutive, and differ by at most one in size.

        Raises:
            RanksError: if a part would have none.
        """
        if count < self.of:
            raise RanksError(
                f"a batch of {count} cannot be cut into {self.of} parts: use a larger batch, fewer processes or "
                "fewer micro-batches"
            )
        return slice(count * self.index // self.of, count * (self.index + 1) // self.of)

    @property
    def key(self) -> tuple[int, ...]:
        """What its random numbers depend on besides seed and step: nothing, where it is the whole batch."""
        return (self.index,) if self.of > 1 else ()


WHOLE = Part(0, 1)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; `Ranks()` is one that trains alone, of which nothing is sent.

    What is sent is summed or copied by `torch.distributed`, in the order in which every process asks for it.

    Attributes:
        rank: number of this process, from 0; that one alone writes.
        count: processes.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    def here() -> Ranks:
        """Those that have `joined`, or one process alone."""
        if distributed.is_available() and distributed.is_initialized():
            return Ranks(distributed.get_rank(), distributed.get_world_size())
        return Ranks()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes checkpoints, logs and models."""
        return self.rank == 0

    def parts(self, least: int) -> list[Part]:
        """The parts of every batch that this process takes.

        Args:
            least: into so many parts a batch is cut; more, where that is no multiple of the processes.
        """
        own = -(-least // self.count)
        return [Part(self.rank * own + i, self.count * own) for i in range(own)]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in place; each gets the same bits."""
        if self.count > 1:
            with _in_reach():
                distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Sum the gradients in place and give the sum of the losses: one message an update.

        A parameter that no output depends on gets a gradient of zero, where alone it has none: to tell the two apart
        would make a GPU wait at every step.
        """
        if self.count == 1:
            return loss
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        message = torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.reshape(1).float()])
        *summed, total = self.sum(message).split([*(p.numel() for p in parameters), 1])
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return total[0]

    def align(self, model: nn.Module) -> None:
        """Give every process the first one's weights and buffers, running statistics among them."""
        if self.count > 1:
            with _in_reach(), torch.no_grad():
                for tensor in model.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def agree(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The first process's numbers, under the same names everywhere: what is decided by them is decided alike."""
        if self.count == 1:
            return dict(numbers)
        values = torch.tensor(list(numbers.values()), dtype=torch.float64)
        with _in_reach():
            distributed.broadcast(values, 0)
        return dict(zip(numbers, values.tolist(), strict=True))

    def check_same(self, number: int, what: str) -> None:
        """Raise a RanksError in every process, unless all have the same number, of something that `what` names."""
        if self.count == 1:
            return
        numbers = torch.zeros(self.count, dtype=torch.int64)
        numbers[self.rank] = number
        found = self.sum(numbers).tolist()
        if len(set(found)) > 1:
            raise RanksError(
                f"the processes that train together do not see the same {what} ({found}): give each the same folder, "
                "on a disk that all hosts share"
            )


@contextmanager
def joined(device: Device = "auto", wait: float = WAIT) -> Iterator[Ranks]:
    """Train together with the other processes that torchrun has started, while it lasts; alone, if there are none.

    It reads what torchrun puts into the environment, see `train.launch`, and MASTER_ADDR and MASTER_PORT. On GPUs each
    process takes the one of its place on the host.

    Args:
        device: where is trained, see `TrainingConfig.device`.
        wait: seconds after which a process that answers nothing counts as lost.
    Raises:
        RanksError: if nothing says where they meet, a process does not come or is lost, or a host has fewer GPUs than
            processes.
    """
    launch = Launch.of_environment()
    if launch.count == 1 or (distributed.is_available() and distributed.is_initialized()):
        yield Ranks.here()
        return
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise RanksError(
            f"the environment speaks of {launch.count} processes, but MASTER_ADDR or MASTER_PORT is not set: start "
            "them by torchrun, or unset RANK and WORLD_SIZE to train with one"
        )
    if not distributed.is_available():
        raise RanksError("this build of torch cannot train in several processes: leave out torchrun")
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        there = torch.cuda.device_count()
        if launch.place >= there:
            raise RanksError(f"this host has {there} GPUs, and more processes: start as many as there are GPUs")
        torch.cuda.set_device(launch.place)
        backend = "cpu:gloo,cuda:nccl"
    # Defaults of this module's functions keep the group that there is at its import, which torch makes in a first
    # update: that group would outlive its end here, and its threads would sometimes abort the process at its exit.
    importlib.import_module("torch.distributed.nn.functional")
    with _in_reach():
        distributed.init_process_group(backend, timeout=timedelta(seconds=wait))
    try:
        yield Ranks.here()
    finally:
        distributed.destroy_process_group()


@contextmanager
def _in_reach() -> Iterator[None]:
    """Say in one sentence that another process is lost."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise RanksError(
            "another process of this training has ended or does not answer; its own message says why: start all again "
            "with the same command, the run goes on from its last checkpoint"
        ) from error
