"""Keras files, `.h5` and `.keras`: attributes that lie, links and storage in other files, filters, spoiled bytes."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import h5py
import numpy as np

from fuzz.archives import DEFLATED, Archive, Entry, build, spoil
from fuzz.case import Case
from fuzz.draws import array, spoiled, text, weights, whole

LAMBDA = {
    "class_name": "Lambda",
    "config": {"name": "l", "function": ["4wEAAAA=", None, None]},
    "registered_name": None,
}


def make(drawn: random.Random) -> Case:
    """A Keras file with zero to three mutations."""
    told: list[str] = []
    archived = drawn.random() < 0.35
    content = _weights_file(drawn, told, archived)
    if archived:
        content = _archive(drawn, content, told)
    if drawn.random() < 0.2:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(
        ("model.keras",) * 3 + ("model.h5",) if archived else ("model.h5", "w.weights.h5", "model.hdf5", "model")
    )
    return Case("keras", name, {name: content}, told=tuple(told))


def _archive(drawn: random.Random, weights_file: bytes, told: list[str]) -> bytes:
    config: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "s", "layers": []}, "module": "keras"}
    if drawn.random() < 0.3:
        config["config"]["layers"] = [LAMBDA, {"module": "weightspace_canary", "class_name": "sing", "config": {}}]
    raw = drawn.choice((json.dumps(config).encode(), b"", b"{", b"[" * 50_000, b"null"))
    names = (b"metadata.json", b"config.json", b"model.weights.h5")
    entries = [
        Entry(name, one) for name, one in zip(names, (b'{"keras_version": "3.0.0"}', raw, weights_file), strict=True)
    ]
    archive = Archive(entries)
    for _ in range(drawn.choice((0, 0, 1, 2))):
        told.append(spoil(drawn, archive, spoiled(drawn, weights_file)))
    if drawn.random() < 0.3:
        for entry in archive.entries:
            entry.method = DEFLATED
    return build(archive)


def _weights_file(drawn: random.Random, told: list[str], archived: bool) -> bytes:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        top = file if archived or drawn.random() < 0.5 else file.create_group("model_weights")
        layers = []
        for i, (name, one) in enumerate(weights(drawn).items()):
            layer = f"layer{i}"
            group = top.create_group(f"{layer}/{layer}" if not archived else f"layers/{layer}/vars")
            label = "0" if archived else f"{name.replace('/', '_')}:0"
            group.create_dataset(label, data=one)
            top[layer if not archived else f"layers/{layer}"].attrs["weight_names"] = [f"{layer}/{label}".encode()]
            layers.append(layer.encode())
        top.attrs["layer_names"] = layers
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [LAMBDA]})
        for _ in range(drawn.choice((0, 1, 1, 2))):
            change = drawn.choice(CHANGES)
            try:
                change(drawn, file, top)
            except (ValueError, TypeError, OSError, KeyError, RuntimeError, OverflowError):
                continue  # HDF5 does not hold such a thing
            told.append(change.__name__.strip("_"))
    return held.getvalue()


def _group(drawn: random.Random, top: h5py.Group) -> h5py.Group:
    found = [top]
    top.visititems(lambda _, one: found.append(one) if isinstance(one, h5py.Group) else None)
    return drawn.choice(found)


def _link(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    """A link to somewhere else: another file, itself, nowhere."""
    group, name = _group(drawn, top), drawn.choice(("kernel:0", "0", "x"))
    links = (
        h5py.ExternalLink("../secret", "/x"),
        h5py.ExternalLink("model.h5", "/"),
        h5py.SoftLink("/"),
        h5py.SoftLink("/nowhere"),
    )
    group[name] = drawn.choice((*links, h5py.SoftLink(f"{group.name}/{name}")))


def _cycle(drawn: random.Random, file: h5py.File, top: h5py.Group) -> None:
    group = _group(drawn, top)
    group["again"] = file["/"]


def _elsewhere(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    """A dataset whose numbers are in another file."""
    _group(drawn, top).create_dataset(
        "out",
        (16,),
        np.float32,
        external=[(drawn.choice(("../secret", "/etc/passwd", "model.h5", "/dev/zero")), 0, 64)],
    )


def _virtual(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(drawn.choice(("../secret.h5", ".", "missing.h5")), "x", (4,))
    _group(drawn, top).create_virtual_dataset("virtual", layout)


def _sparse(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    """A shape that was never written: it reads as so many zeros."""
    shape = drawn.choice(((2**40,), (2**31,), (2**26,), (2**20, 2**20), (2**62,)))
    _group(drawn, top).create_dataset(
        "sparse", shape, np.float32, chunks=(1024,) * len(shape) if len(shape) == 1 else (64, 64)
    )


def _bomb(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    numbers = np.zeros(drawn.choice((2**12, 2**16)), np.float32)
    _group(drawn, top).create_dataset("bomb", data=numbers, compression="gzip", chunks=True)


def _typed(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    """A dataset of another type."""
    made = (
        np.array([b"a"]),
        np.zeros(3, ">f4"),
        np.zeros(2, [("a", "<f4")]),
        np.zeros(2, np.complex64),
        np.zeros(2, "<i8"),
    )
    group, kind = _group(drawn, top), drawn.randrange(len(made) + 2)
    if kind < len(made):
        group.create_dataset("typed", data=made[kind])
    elif kind == len(made):
        group.create_dataset("text", data="hello")
    else:
        group.create_dataset("none", data=h5py.Empty("f"))


def _names(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    values = (
        [b"layer0", b"layer0"],
        [b"missing"],
        [],
        5,
        b"layer0",
        [text(drawn).encode("utf-8", "replace")],
        np.float32(1),
    )
    group = drawn.choice((top, _group(drawn, top)))
    group.attrs[drawn.choice(("layer_names", "weight_names"))] = drawn.choice(values)


def _config(drawn: random.Random, file: h5py.File, _: h5py.Group) -> None:
    file.attrs["model_config"] = drawn.choice(("{", "", b"\xff", "[" * 20_000, 5, json.dumps(LAMBDA)))


def _more(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    _group(drawn, top).create_dataset(text(drawn, "bias"), data=array(drawn))


def _deep(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    for i in range(drawn.choice((9, 60))):
        top = top.create_group(f"g{i % 3}")
    top.create_dataset("deep", data=np.ones(3, np.float32))


def _filtered(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    given = drawn.choice(({"shuffle": True}, {"fletcher32": True}, {"compression": "lzf"}, {"scaleoffset": 2}))
    _group(drawn, top).create_dataset("filtered", data=np.arange(64, dtype=np.float32), chunks=(16,), **given)


def _odd_shape(drawn: random.Random, _: h5py.File, top: h5py.Group) -> None:
    shape = drawn.choice(((), (0,), (0, 5), (1,) * 32, (abs(whole(drawn, 3)) % 100,)))
    _group(drawn, top).create_dataset(
        "shape", data=np.zeros(shape, np.float32), maxshape=None if shape == () else (None,) * len(shape)
    )


CHANGES = (_link, _link, _cycle, _elsewhere, _elsewhere, _virtual, _sparse, _sparse, _bomb, _typed, _names, _names)
CHANGES = (*CHANGES, _config, _more, _deep, _filtered, _odd_shape)
