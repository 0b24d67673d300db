"""Where the files of an image set are: at a given path, in the data folder, or in the cache, downloaded if need be."""

from __future__ import annotations

import os
from pathlib import Path

from weightspace.zoo.images.catalogue import SOURCES
from weightspace.zoo.images.image_set import ImageError
from weightspace.zoo.images.source import ImageFile, ImageSource, cache_folder

DATA_VARIABLE = "WEIGHTSPACE_DATA"
"""Environment variable: a folder of image sets, with one folder for each as in the user's cache."""


def locate(source: ImageSource, path: str | Path | None) -> tuple[Path, ...]:
    """The files of `source`, in its order, from the first place that has them."""
    if path is not None:
        return _given(source, Path(path))
    if not source.files:
        return ()
    data = os.environ.get(DATA_VARIABLE)
    if data:
        if not Path(data).is_dir():
            raise ImageError(f"{DATA_VARIABLE} is {data!r}, which is no folder: correct or unset it")
        folder = Path(data) / source.folder
        if any((folder / file.name).is_file() for file in source.files):
            return _whole(source, folder)
    folder = cache_folder() / source.folder
    return tuple(_cached(source, file, folder) for file in source.files)


def _given(source: ImageSource, path: Path) -> tuple[Path, ...]:
    if not source.files:
        raise ImageError(f"{source.form}: leave out the path {path}")
    if path.is_file() and len(source.files) == 1:
        return (path,)
    if not path.is_dir():
        kind = "one file, not its folder" if path.is_file() else "neither a file nor a folder"
        raise ImageError(f"{path} is {kind}: give the folder of {_names(source)}")
    if not any((path / file.name).is_file() for file in source.files) and (path / source.folder).is_dir():
        path = path / source.folder
    return _whole(source, path)


def _whole(source: ImageSource, folder: Path) -> tuple[Path, ...]:
    missing = [file.name for file in source.files if not (folder / file.name).is_file()]
    if missing:
        raise ImageError(
            f"{folder} has no {' or '.join(missing)}: it must hold {_names(source)}; the set is {source.form}"
        )
    return tuple(folder / file.name for file in source.files)


def _cached(source: ImageSource, file: ImageFile, folder: Path) -> Path:
    """The file in the user's cache, downloaded first if it is not there."""
    path = folder / file.name
    if path.is_file():
        return path
    if file.url is None:
        raise ImageError(
            f"not found, and it has no official download with a checksum: put {file.name} into {folder}, or into "
            f"{source.folder}/ of the folder that {DATA_VARIABLE} names; the set is {source.form}"
        )
    import pooch

    try:
        # The download goes to a temporary name that is deleted on any failure, and is renamed when its sum is right.
        pooch.retrieve(
            file.url,
            known_hash=f"md5:{file.url_md5 or file.md5}",
            fname=file.name,
            path=folder,
        )
    except (OSError, ValueError) as error:
        raise ImageError(
            f"could not download {file.url}: {error}; try again, or put {_names(source)} into {folder} by hand"
            f"{_other_copies(source)}"
        ) from error
    return path


def _names(source: ImageSource) -> str:
    return ", ".join(file.name for file in source.files)


def _other_copies(source: ImageSource) -> str:
    """A hint at the sets of the same pictures that are at hand under names of their own."""
    data = os.environ.get(DATA_VARIABLE)
    found = [
        name
        for name, other in SOURCES.items()
        if data and other is not source and other.folder == source.folder
        if all((Path(data) / other.folder / file.name).is_file() for file in other.files)
    ]
    return f"; {DATA_VARIABLE} has {' and '.join(found)}, which are other sets" if found else ""
