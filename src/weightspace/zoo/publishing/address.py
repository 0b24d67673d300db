"""The places that people name: a repository of the hub, at a revision or not, or a folder."""

from __future__ import annotations

import re
from pathlib import Path

from weightspace.files.hub import SCHEME
from weightspace.zoo.publishing.folder_place import FolderPlace
from weightspace.zoo.publishing.form import Publishable, PublishingError
from weightspace.zoo.publishing.hub_place import HubPlace
from weightspace.zoo.publishing.place import Place


def place_of(target: str, form: Publishable, *, private: bool = False) -> Place:
    """The place that a person names: OWNER/NAME, OWNER/NAME@REVISION, or a folder ./FOLDER, /FOLDER or file:FOLDER.

    Raises:
        PublishingError: if it is neither.
    """
    if target.startswith(("/", "./", "../", "~", "file:")) or target in (".", ".."):
        path = re.sub("^//", "", target.removeprefix("file:"))
        return FolderPlace(Path(path).expanduser(), form)
    found = re.fullmatch(rf"(?:{SCHEME})?([\w.-]+/[\w.-]+)(?:@([^@\s]+))?", target, re.ASCII)
    if found is None:
        raise PublishingError(
            f"{target!r} is no place: give OWNER/NAME for a repository of the hub (to pull also OWNER/NAME@REVISION), "
            "or ./FOLDER, /FOLDER or file:FOLDER"
        )
    if found[2] is None and Path(found[1]).is_dir() and not target.startswith(SCHEME):
        raise PublishingError(
            f"{target} is a folder here, and may be a repository of the hub too: write ./{target} or {SCHEME}{target}"
        )
    return HubPlace(found[1], found[2], form, private)
