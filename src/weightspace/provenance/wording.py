"""What was found of a network's origin, in words."""

from __future__ import annotations

from weightspace.provenance.lineage import Lineage, Relation
from weightspace.provenance.null import LEAST


def lineage_text(found: Lineage) -> str:
    """A verdict, how alike the networks are, and against what that was held."""
    best = found.best
    if found.compared == 1:
        verdict = (
            f"related: {found.network} and {best.name} come from one network"
            if best.related
            else f"no sign of it: {found.network} and {best.name} are no more alike than unrelated networks"
        )
        return "\n".join([verdict, *_details(best), *_held_against(found), *_notes(found)])
    verdict = (
        f"related: {found.network} and {best.name} come from one network"
        if best.related
        else f"no sign of it: {found.network} is no more like the nearest network, {best.name}, than unrelated ones are"
    )
    width = max(len(one.name) for one in found.relations)
    table = [f"  {'network':<{width}}  likeness  p-value"]
    table += [f"  {one.name:<{width}}  {one.likeness:8.3f}  {_p(one.p_value)}" for one in found.relations]
    return "\n".join([verdict, *table, *_held_against(found), *_notes(found)])


def _details(best: Relation) -> list[str]:
    layers = ", ".join(f"{name} {cosine:.2f}" for name, cosine in best.layers[:6])
    more = f" and {len(best.layers) - 6} more" if len(best.layers) > 6 else ""
    return [
        f"  likeness  {best.likeness:.3f} of matched filters (1 is the same network up to order and scale)",
        f"  layers    {layers}{more}",
        f"  p-value   {_p(best.p_value)}",
    ]


def _held_against(found: Lineage) -> list[str]:
    null = found.null
    if null.kind == "surrogates":
        what = f"{null.count} random mixtures of its neurons, with room for what like training makes alike"
    else:
        what = f"{null.count} of the folder's networks, drawn at random"
    lines = [f"  unrelated {null.mean:.3f} +- {null.deviation:.3f} ({what})"]
    if found.compared > 1:
        lines.append(f"  compared  {found.compared:,} networks, {found.matched:,} of them neuron by neuron")
    return lines


def _notes(found: Lineage) -> list[str]:
    left_out = [f"  left out  {count:,} files {reason}" for reason, count in (found.skipped or {}).items()]
    direction = ["  Which of the two came first, weights do not say."] if found.related else []
    return [*left_out, *(f"  {note}" for note in found.notes), *direction]


def _p(value: float) -> str:
    return f"{LEAST:g} or less" if value <= LEAST else f"{value:.2g}"
