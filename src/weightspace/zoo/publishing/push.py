"""A push: files to a place that is free for them, what differs and nothing else, the manifest last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weightspace.zoo.publishing.address import place_of
from weightspace.zoo.publishing.form import CARD, FORMS, Content, Publishable, PublishingError, hidden
from weightspace.zoo.publishing.hub_place import HubPlace
from weightspace.zoo.publishing.place import Place
from weightspace.zoo.publishing.transfer import Transfer, megabytes
from weightspace.zoo.store import MANIFEST


def push(
    files: Mapping[str, Content],
    form: Publishable,
    target: str,
    *,
    private: bool = False,
    replace: bool = False,
    show: bool = True,
) -> Transfer:
    """Bring files to a place; a push that was killed goes on when it is called again.

    Files that are there with the same content stay; the manifest comes last, so that half a push passes for none.

    Args:
        files: by their names there, the card and the manifest among them.
        target: OWNER/NAME, or a folder: ./FOLDER, /FOLDER or file:FOLDER.
        private: if the repository has to be made, for you alone.
        replace: let it take the place of something else that is there; on the hub that stays in the history.
        show: show the progress on standard error.
    Raises:
        PublishingError: if a file is damaged, or the place holds something else.
        HubError: if the hub does not let it.
    """
    place = place_of(target, form, private=private)
    if isinstance(place, HubPlace) and place.asked is not None:
        raise PublishingError(f"{target}: a push makes a new revision, so leave @{place.asked} out")
    place.may_write()
    there = place.look()
    # Beside each other both would be ruined, as both have a manifest
    for other in FORMS:
        if other is not form and any(other.owns(name) for name in there):
            raise PublishingError(f"{place} holds a {other.word}, and this is a {form.word}: choose another place")
    if not replace:
        _check_free(place, there, files, form)
    with megabytes("checking", sum(content.size for content in files.values()), show) as advance:
        for content in files.values():
            content.check()
            advance(content.size)
    differing = [name for name, content in files.items() if name not in there or not place.holds(name, content)]
    surplus = [name for name in there if form.owns(name) and name not in files]
    if differing or surplus:
        _send(place, files, differing, surplus, MANIFEST in there, show)
    carried = sum(files[name].size for name in differing)
    return Transfer(place.address, place.revision, len(files), len(differing), carried)


def _check_free(place: Place, there: Mapping[str, int], files: Mapping[str, Content], form: Publishable) -> None:
    """Raise a PublishingError if a place holds anything but these files or a part of them."""
    if MANIFEST in there:
        if place.holds(MANIFEST, files[MANIFEST]):
            return
        raise PublishingError(
            f"{place} holds another {form.word} already: choose another place, or let this one take its place by "
            "--replace"
        )
    foreign = [name for name in there if not form.owns(name) and not hidden(name)]
    # the card of a push that was killed at its very end is ours
    foreign = [name for name in foreign if not (name == CARD and place.holds(CARD, files[CARD]))]
    if foreign:
        raise PublishingError(
            f"{place} holds something else ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}): choose "
            f"another place, or put the {form.word} beside it by --replace"
        )


def _send(
    place: Place,
    files: Mapping[str, Content],
    differing: Sequence[str],
    surplus: Sequence[str],
    complete: bool,
    show: bool,
) -> None:
    """Bring files to a place, several at a time.

    Args:
        complete: whether there is a manifest, which must not stay while the files that it speaks of change.
    """
    total = sum(files[name].size for name in differing)
    data = [name for name in differing if name not in (CARD, MANIFEST)]
    parts: list[list[str]] = [[]]
    for name in data:
        if parts[-1] and sum(files[other].size for other in parts[-1]) + files[name].size > place.portion(total):
            parts.append([])
        parts[-1].append(name)
    # whatever else has changed, the manifest is written anew if it was taken away
    last = [name for name in (CARD, MANIFEST) if name in differing or (name == MANIFEST and (data or surplus))]
    with megabytes(f"pushing to {place}", total, show) as advance:
        for part in parts[:-1]:
            place.change({name: files[name] for name in part}, [MANIFEST] if complete else [], advance)
            complete = False
        place.change({name: files[name] for name in (*parts[-1], *last)}, surplus, advance)
