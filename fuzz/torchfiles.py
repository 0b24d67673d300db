"""Files of `torch.save`, both kinds, made of opcodes and storages without PyTorch."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from fuzz.archives import Archive, Entry
from fuzz.pickles import STORAGES, TensorSaid, op_value, said_of, state_dict, whole_pickle

MAGIC = 0x1950A86A20F9469CFC6C


def told_of(arrays: Mapping[str, np.ndarray]) -> dict[str, TensorSaid]:
    """What PyTorch writes of these arrays; storages have the keys 0, 1 and so on."""
    return {name: said_of(array, str(i)) for i, (name, array) in enumerate(arrays.items())}


def archive_of(pickle: bytes, storages: Mapping[str, bytes], top: str = "archive") -> Archive:
    """The zip archive that `torch.save` writes."""
    entries = [Entry(f"{top}/data.pkl".encode(), pickle), Entry(f"{top}/byteorder".encode(), b"little")]
    entries += [Entry(f"{top}/data/{key}".encode(), raw) for key, raw in storages.items()]
    return Archive([*entries, Entry(f"{top}/version".encode(), b"3\n")])


def storages_of(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Contents of storages by key."""
    return {str(i): array.tobytes() for i, array in enumerate(arrays.values())}


def sound(arrays: Mapping[str, np.ndarray]) -> Archive:
    """A state dict as PyTorch saves it."""
    return archive_of(whole_pickle(state_dict(told_of(arrays))), storages_of(arrays))


def old_parts(pickle: bytes, storages: Sequence[tuple[str, int, bytes]]) -> list[bytes]:
    """The old kind of file: magic number, protocol, system, the object, keys of storages, and these.

    Args:
        storages: key, numbers and bytes of each.
    """
    system = b"}(" + op_value("protocol_version") + op_value(1001) + op_value("little_endian") + b"\x88u"
    keys = whole_pickle([op_value([key for key, _, _ in storages])])
    head = [whole_pickle([op_value(MAGIC)]), whole_pickle([op_value(1001)]), whole_pickle([system]), pickle, keys]
    return head + [struct.pack("<q", numel) + raw for _, numel, raw in storages]


def old_storages(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, int, bytes]]:
    """Storages for `old_parts`."""
    return [(str(i), array.size, array.tobytes()) for i, array in enumerate(arrays.values())]


def drawn_arrays(drawn: random.Random, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, one of them of another type now and then."""
    return {
        name: array.astype(drawn.choice(list(STORAGES))) if drawn.random() < 0.1 else array
        for name, array in arrays.items()
    }
