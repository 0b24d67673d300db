"""A pull: what was pushed into a folder, every file compared with its hash before it gets its name, resumable."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from weightspace.files.atomic import file_hash, write_atomically
from weightspace.files.lock import writing
from weightspace.zoo.publishing.address import place_of
from weightspace.zoo.publishing.form import FORMS, ZOO_FORM, Publishable, PublishingError
from weightspace.zoo.publishing.place import Place
from weightspace.zoo.publishing.transfer import MB, Transfer, megabytes
from weightspace.zoo.store import FORMAT, MANIFEST, PULLING, unsealed

SOURCE = "source.json"
"""Inside `PULLING`: where the rest of a pull is to come from, and at which revision."""


def pull(source: str, form: Publishable, folder: str | Path, *, show: bool = True) -> Transfer:
    """Bring what was pushed into a folder; a pull that was killed goes on, at the revision at which it began.

    Every file is compared with its hash before it gets its name, and the manifest is written last. Nothing is executed,
    and nothing written but files with the names that a zoo or a model has.

    Args:
        source: OWNER/NAME or OWNER/NAME@REVISION, or a folder: ./FOLDER, /FOLDER or file:FOLDER.
        show: show the progress on standard error.
    Raises:
        PublishingError: if there is no such thing, it is of another kind or damaged, or the folder holds something
            else.
        HubError: if the hub does not let it.
        OSError: if the disk is full; what was finished stays.
    """
    folder, place = Path(folder), place_of(source, form)
    begun = _begun(folder, place)
    there = place.look(begun)
    if MANIFEST not in there:
        if not there:
            raise PublishingError(f"{place}: there is nothing to pull")
        raise PublishingError(
            f"{place} has no {MANIFEST}: its push has not come to its end, or it is no {form.word} of weightspace"
        )
    manifest = place.read(MANIFEST)
    hashes = _hashes(manifest, form, place)
    whole = _check_target(folder, manifest, begun is not None, form)
    with writing(folder):
        whole = _check_target(folder, manifest, begun is not None, form)  # again: another run may have come first
        missing = _missing(folder, hashes, whole, form)
        absent = [name for name in missing if name not in there]
        if absent:
            raise PublishingError(f"{place} lacks {absent[0]}, which its manifest names: it has to be pushed again")
        sizes = {name: there[name] for name in missing}
        _check_room(folder, sum(sizes.values()), place)
        if missing or not whole:
            record = {**place.identity(), "revision": place.revision}
            write_atomically(folder / PULLING / SOURCE, json.dumps(record).encode())
            with megabytes(f"pulling from {place}", sum(sizes.values()), show) as advance:
                for name, size in sizes.items():
                    _fetch(place, name, hashes[name], folder)
                    advance(size)
            write_atomically(folder / MANIFEST, manifest)
        shutil.rmtree(folder / PULLING, ignore_errors=True)
    return Transfer(place.address, place.revision, len(hashes) + 1, len(sizes), sum(sizes.values()))


def _begun(folder: Path, place: Place) -> str | None:
    """The revision of a pull from this place that was killed; None if there was none.

    Raises:
        PublishingError: if the folder holds half of something else.
    """
    path = folder / PULLING / SOURCE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        revision = record.pop("revision")
        if record == place.identity() and isinstance(revision, str):
            return revision
        origin = record["from"]
    except (ValueError, KeyError, TypeError, AttributeError):
        origin = "somewhere that cannot be read"
    raise PublishingError(f"{folder} holds half a pull from {origin}: end that one, delete it, or choose another --out")


def _hashes(manifest: bytes, form: Publishable, place: Place) -> dict[str, str]:
    """The hash of each file that a manifest names.

    Raises:
        PublishingError: if it is damaged, of something else, or names a file that may not be written.
    """
    try:
        record = unsealed(manifest)
        word, version, hashes = record.get("kind", ZOO_FORM.word), record["format"], record["sha256"]
        if not all(isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) for sha in hashes.values()):
            raise ValueError("it has no hashes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PublishingError(
            f"{place}: its {MANIFEST} is damaged: pull again, or ask its owner to push it again"
        ) from None
    if word != form.word:
        if word in [other.word for other in FORMS]:
            raise PublishingError(f"{place} holds a {word}, no {form.word}: use `weightspace {word} pull`")
        raise PublishingError(f"{place} holds no {form.word}, but a {word!r}, which this weightspace does not know")
    if version != FORMAT:
        raise PublishingError(f"{place} has format {version}, this weightspace reads format {FORMAT}: get another one")
    for name in hashes:
        if not form.owns(name):
            raise PublishingError(f"{place} names a file {name!r}, which no {form.word} has: nothing was fetched")
    lacking = [name for name in form.needed if name not in hashes]
    if lacking:
        raise PublishingError(f"{place} is no {form.word}: it has no {lacking[0]}")
    return hashes


def _check_target(folder: Path, manifest: bytes, begun: bool, form: Publishable) -> bool:
    """Whether a folder holds the same manifest already.

    Raises:
        PublishingError: if it holds something else; nothing in it is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise PublishingError(f"{folder} is a file: choose a folder for the {form.word}")
    if (folder / MANIFEST).is_file():
        if (folder / MANIFEST).read_bytes() == manifest:
            return True
        raise PublishingError(f"{folder} holds another {form.word}, which stays as it is: choose another --out")
    ours = (".lock", PULLING)  # what a pull that was refused or killed at its very start leaves
    if not begun and folder.exists() and any(path.name not in ours for path in folder.iterdir()):
        raise PublishingError(f"{folder} is not empty, and nothing in it was touched: choose another --out")
    return False


def _missing(folder: Path, hashes: Mapping[str, str], whole: bool, form: Publishable) -> list[str]:
    """The files that a folder lacks.

    Raises:
        PublishingError: if a folder that was whole has another one, which may be somebody's work.
    """
    missing = []
    for name, sha in hashes.items():
        if not (folder / name).is_file():
            missing.append(name)
        elif file_hash(folder / name) != sha:
            if whole and not (folder / PULLING).exists():
                raise PublishingError(
                    f"{folder / name} is not what the {form.word} has there: delete it and pull again, or choose "
                    "another --out"
                )
            missing.append(name)
    return missing


def _check_room(folder: Path, needed: int, place: Place) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PublishingError(
            f"{place} needs {needed / MB:,.0f} MB more, and {folder} has {free / MB:,.0f} MB free: free some space and "
            "run the same command again"
        )


def _fetch(place: Place, name: str, sha256: str, folder: Path) -> None:
    """Bring one file, which gets its name once it is whole.

    Raises:
        PublishingError: if it arrives damaged twice.
    """
    for _ in range(2):
        staged = place.fetch(name, folder / PULLING)
        if file_hash(staged) == sha256:
            break
        staged.unlink()
    else:
        raise PublishingError(
            f"{place}: {name} differs from its checksum, twice: it is damaged there or on the way; run the same "
            "command again, and if that does not help ask its owner to push it again"
        )
    with staged.open("rb+") as file:
        os.fsync(file.fileno())
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    staged.replace(folder / name)
