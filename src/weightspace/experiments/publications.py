"""Zoos and models pushed with their cards, and pulled."""

from __future__ import annotations

from pathlib import Path

from weightspace.errors import NetworkError
from weightspace.experiments.cards import UNKNOWN, model_card, zoo_card
from weightspace.zoo.publishing.form import CARD, MODEL, MODEL_FORM, ZOO_FORM, Content, model_manifest
from weightspace.zoo.publishing.pull import pull
from weightspace.zoo.publishing.push import push
from weightspace.zoo.publishing.transfer import Transfer
from weightspace.zoo.store import DESCRIPTION, INDEX, MANIFEST, read_description, read_manifest


def push_zoo(
    folder: str | Path,
    target: str,
    *,
    license_name: str = UNKNOWN,
    private: bool = False,
    replace: bool = False,
    show: bool = True,
) -> Transfer:
    """Publish a complete and sound zoo as a data set, see `zoo.publishing.push`.

    Raises:
        ZooError, PublishingError: if it is not complete, or damaged; or the place holds something else.
        HubError: if the hub does not let it.
    """
    folder = Path(folder)
    read_description(folder)  # it says what else the folder may be
    hashes = read_manifest(folder)["sha256"]
    shards = sorted(set(hashes) - {DESCRIPTION, INDEX})
    files = {name: Content.of(folder / name, hashes[name]) for name in (*shards, INDEX, DESCRIPTION)}
    files[CARD] = Content.of(zoo_card(folder, license_name).encode())
    files[MANIFEST] = Content.of(folder / MANIFEST)
    return push(files, ZOO_FORM, target, private=private, replace=replace, show=show)


def pull_zoo(source: str, out: str | Path, *, show: bool = True) -> Transfer:
    """Bring a published zoo into a folder, see `zoo.publishing.pull`."""
    return pull(source, ZOO_FORM, out, show=show)


def push_model(
    path: str | Path,
    target: str,
    *,
    license_name: str = UNKNOWN,
    private: bool = False,
    replace: bool = False,
    show: bool = True,
) -> Transfer:
    """Publish a meta-model, a detector or a decompiler, see `zoo.publishing.push`.

    Args:
        path: its file, or a folder with a `model.safetensors`.
    Raises:
        NetworkError: if there is none, or it is damaged.
        PublishingError: if the place holds something else.
        HubError: if the hub does not let it.
    """
    path = Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise NetworkError(f"there is no model {path}: train one with `weightspace train ZOO`, or name its file")
    model = Content.of(path)
    card = Content.of(model_card(path, license_name).encode())
    files = {MODEL: model, CARD: card, MANIFEST: model_manifest(model)}
    return push(files, MODEL_FORM, target, private=private, replace=replace, show=show)


def pull_model(source: str, out: str | Path, *, show: bool = True) -> Transfer:
    """Bring a published model into a folder, see `zoo.publishing.pull`."""
    return pull(source, MODEL_FORM, out, show=show)
