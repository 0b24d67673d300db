"""Which process this is among those that torchrun has started; read without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """What torchrun says in the environment of each process that it starts.

    Attributes:
        rank: number of this process over all hosts, from 0.
        place: its number on this host, from 0.
        count: processes over all hosts.
    """

    rank: int = 0
    place: int = 0
    count: int = 1

    @staticmethod
    def of_environment() -> Launch:
        """From RANK, LOCAL_RANK and WORLD_SIZE; one process alone where they are not set.

        Raises:
            ValueError: if they cannot be.
        """
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return Launch()
        texts = {name: os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        whole = all(text.isdigit() for text in texts.values())
        if not whole or not int(texts["RANK"]) < int(texts["WORLD_SIZE"]):
            raise ValueError(
                f"the environment says {texts}, which no process can be: start it by torchrun, or unset RANK and "
                "WORLD_SIZE"
            )
        return Launch(*map(int, texts.values()))
