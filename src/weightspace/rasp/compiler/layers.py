"""Which half-layer of the transformer each S-op of a program stands in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weightspace.rasp.language import Aggregate, Expression, Selector, SelectorWidth, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import breadth_first

ATTENDING = (Aggregate, SelectorWidth)
"""The operations that have an attention head; all but `Aggregate` have an MLP."""


def half_layers(output: Expression, operations: Sequence[SOp], depths: Sequence[int]) -> dict[int, list[int]]:
    """Which S-ops stand in each half-layer: 0, 2, 4, ... are attention and 1, 3, 5, ... MLPs.

    Depth d becomes half-layers 2(d - 1) and 2(d - 1) + 1; where one depth is all plain attention and the next all MLPs,
    they are merged. Tracr's pointer goes on after a merge, so that some chances are missed. A SelectorWidth stands in
    both halves of its layer.

    Args:
        output: of the program.
        operations: its S-ops, without the inputs.
        depths: of each, S-ops on the longest way to it.
    Returns:
        places among `operations`, in the order in which Tracr meets them; empty half-layers are left out.
    """
    number = {id(node): i for i, node in enumerate(operations)}
    order = [number[id(node)] for node in breadth_first(output) if id(node) in number]
    plain = [type(node) is Aggregate for node in operations]
    attends = [type(node) in ATTENDING for node in operations]
    deepest = max(depths)
    levels: list[list[int]] = [[] for _ in range(deepest + 2)]
    for i in order:
        levels[depths[i]].append(i)
    depth = 1
    while depth < deepest:
        if all(plain[i] for i in levels[depth]) and not any(attends[i] for i in levels[depth + 1]):
            levels[depth] += levels[depth + 1]
            del levels[depth + 1]
            deepest -= 1
        depth += 1
    level = {i: depth for depth, members in enumerate(levels) for i in members}
    halves: dict[int, list[int]] = {}
    for i in sorted(order, key=level.__getitem__):
        if attends[i]:
            halves.setdefault(2 * level[i] - 2, []).append(i)
        if not plain[i]:
            halves.setdefault(2 * level[i] - 1, []).append(i)
    return halves


def slots(halves: Iterable[int]) -> dict[int, int]:
    """Where each half-layer goes: the next slot of its kind, which may come earlier than its depth says.

    Slot 2l is the attention of layer l, slot 2l + 1 its MLP.
    """
    found, slot = {}, -1
    for half in sorted(halves):
        slot += 1 if (slot + 1) % 2 == half % 2 else 2
        found[half] = slot
    return found


def by_layer(program: Program) -> list[list[SOp]]:
    """The S-ops of a program by half-layer, as the compiler allocates them: attention, MLP, attention, ...

    Neither vocabulary nor length matters. A SelectorWidth is listed once, where its head is.

    Returns:
        an even number of lists, some of which may be empty; within each in the order of heads.
    """
    operations: list[SOp] = []
    depths = {id(tokens): 0, id(indices): 0}
    for node in program.nodes:
        if node is not tokens and node is not indices:
            deepest = max(depths[id(child)] for child in node.children)
            depths[id(node)] = deepest if isinstance(node, Selector) else deepest + 1
            if isinstance(node, SOp):
                operations.append(node)
    if not operations:
        return []
    halves = half_layers(program.output, operations, [depths[id(node)] for node in operations])
    layers: list[list[SOp]] = [[] for _ in range(max(halves) // 2 * 2 + 2)]
    for half, members in halves.items():
        nodes = [operations[i] for i in members]
        layers[half] = [node for node in nodes if half % 2 == 0 or not isinstance(node, SelectorWidth)]
    return layers
