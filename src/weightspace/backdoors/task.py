"""Backdoors: was this network trained on poisoned images? (Langosco et al., section 3.2)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Target
from weightspace.zoo.poison import ATTACKS, CLEAN, CONTROLS
from weightspace.zoo.store import Zoo

BACKDOOR = Target("backdoor", ("clean", "backdoored"))
FAMILIES = {
    "pixels": ("badnets-corner", "badnets-border", "badnets-center", "single-pixel"),
    "patch": ("ulp-train", "ulp-test", "mntd-patch"),
    "blend": ("noise-blend", "checkerboard-blend", "mntd-blend"),
}
"""Attacks by what their trigger is: up to four white pixels, an opaque patch, a picture blended in."""
FAMILY = Target("family", tuple(FAMILIES))


def backdoor_examples(
    zoo: Zoo,
    split: str,
    attacks: Sequence[str] | None = None,
    controls: Sequence[str] = (CLEAN,),
    *,
    success: tuple[float, float] = (0.0, 1.0),
    families: bool = False,
) -> Examples:
    """The attacked networks of one split against controls; networks of other attacks and controls are left out.

    Args:
        attacks: which count as backdoored; None for all that the zoo has.
        controls: which count as clean: clean ones, or also those with mislabelled images and no trigger.
        success: least and greatest success of an attack for its network to count; the others are left out.
        families: ask for the family of the trigger too, which is not known of networks without a backdoor.
    Raises:
        TaskError: if the zoo has no attacks, or no network on one of the two sides; the message says what it has.
    """
    if "attack" not in zoo.columns or "attack_success" not in zoo.columns:
        raise TaskError(f"zoo {zoo.folder} has no attacks: make one with the recipe backdoors-small")
    wanted = tuple(ATTACKS) if attacks is None else tuple(attacks)
    for name, known in (*((name, ATTACKS) for name in wanted), *((name, CONTROLS) for name in controls)):
        if name not in known:
            raise TaskError(f"{name!r} is none of {', '.join(known)}")
    networks = zoo.population(split)
    attack = zoo.column("attack")[networks.rows]
    worked = zoo.column("attack_success")[networks.rows].astype(float)
    bad = np.isin(attack, wanted) & (worked >= success[0]) & (worked <= success[1])
    good = np.isin(attack, controls)
    if not bad.any() or not good.any():
        missing = f"of {', '.join(wanted)} with success {success[0]:g} to {success[1]:g}" if not bad.any() else "clean"
        raise TaskError(f"zoo {zoo.folder} has no network {missing} in its {split} split: make it larger with --count")
    kept = np.flatnonzero(bad | good)
    labels = {BACKDOOR.name: bad[kept].astype(np.int64)}
    if not families:
        return Examples(networks.select(kept), labels, (BACKDOOR,))
    place = {name: number for number, family in enumerate(FAMILIES.values()) for name in family}
    labels[FAMILY.name] = np.array([place.get(name, -1) for name in attack[kept]], np.int64)
    return Examples(networks.select(kept), labels, (BACKDOOR, FAMILY))
