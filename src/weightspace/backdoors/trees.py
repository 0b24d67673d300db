"""Boosted trees as plain arrays: kept in any file of arrays, and asked without the library that grew them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from weightspace.errors import NetworkError


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees side by side, filled up to the size of the largest.

    Attributes:
        feature: (trees, nodes) the column that a node asks; a leaf asks the first, and leads to itself.
        threshold: up to which a value goes left.
        left, right: nodes of the same tree.
        missing_left: which way a missing value goes.
        value: of leaves, 0 elsewhere.
        depth: questions on the longest way.
    """

    feature: Int[np.ndarray, "t n"]
    threshold: Float[np.ndarray, "t n"]
    left: Int[np.ndarray, "t n"]
    right: Int[np.ndarray, "t n"]
    missing_left: Bool[np.ndarray, "t n"]
    value: Float[np.ndarray, "t n"]
    depth: int

    @staticmethod
    def of(booster: Any) -> Trees:
        """A fitted `lightgbm.Booster` of numbers, one output."""
        flat = [_flat(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
        size = max(len(nodes) for nodes, _ in flat)
        columns = list(zip(*(_padded(nodes, size) for nodes, _ in flat), strict=True))
        feature, threshold, left, right, missing, value = (np.array(column) for column in columns)
        whole = (feature.astype(np.int32), threshold, left.astype(np.int32), right.astype(np.int32))
        return Trees(*whole, missing.astype(bool), value, max(depth for _, depth in flat))

    def scores(self, x: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
        """(m,) sum of the leaves that each row of (m, columns) comes to; NaN is missing."""
        rows, trees = np.arange(len(x))[:, None], np.arange(len(self.value))[None]
        node = np.zeros((len(x), len(self.value)), np.int32)
        for _ in range(self.depth):
            given = x[rows, self.feature[trees, node]].astype(np.float64)
            to_left = np.where(np.isnan(given), self.missing_left[trees, node], given <= self.threshold[trees, node])
            node = np.where(to_left, self.left[trees, node], self.right[trees, node])
        return self.value[trees, node].sum(1)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` takes."""
        found = {name: getattr(self, name) for name in ("feature", "threshold", "left", "right", "value")}
        return {**found, "missing_left": self.missing_left.astype(np.uint8), "depth": np.array([self.depth])}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray], columns: int) -> Trees:
        """Trees that ask some of so many columns.

        Raises:
            NetworkError: if a node leads out of its tree, or asks a column that is not there.
        """
        whole = {name: np.asarray(arrays[name]) for name in ("feature", "threshold", "left", "right", "value")}
        trees = Trees(**whole, missing_left=arrays["missing_left"] != 0, depth=int(arrays["depth"][0]))
        nodes = trees.value.shape[1] if trees.value.ndim == 2 else 0
        shapes = {array.shape for array in (*whole.values(), trees.missing_left)}
        inside = all(((array >= 0) & (array < most)).all() for array, most in (
            (trees.feature, columns), (trees.left, nodes), (trees.right, nodes)
        ))  # fmt: skip
        if len(shapes) != 1 or not nodes or not inside or not 0 <= trees.depth <= nodes:
            raise NetworkError(
                f"trees of shapes {sorted(map(str, shapes))} lead out of themselves: the file is damaged"
            )
        return trees


Node = tuple[int, float, int, int, bool, float]


def _flat(root: Mapping[str, Any]) -> tuple[list[Node], int]:
    """The nodes of one tree, the root first, and its depth."""
    nodes: list[Node] = []
    deepest = 0

    def add(node: Mapping[str, Any], depth: int) -> int:
        nonlocal deepest
        place, deepest = len(nodes), max(deepest, depth)
        if "leaf_value" in node and "split_feature" not in node:
            nodes.append((0, 0.0, place, place, True, float(node["leaf_value"])))
            return place
        nodes.append((0, 0.0, 0, 0, True, 0.0))  # known when its children are
        threshold = float(node["threshold"])
        # Where no value was missing in training, LightGBM takes a missing one for 0
        missing_left = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0
        left, right = add(node["left_child"], depth + 1), add(node["right_child"], depth + 1)
        nodes[place] = (int(node["split_feature"]), threshold, left, right, missing_left, 0.0)
        return place

    add(root, 0)
    return nodes, deepest


def _padded(nodes: list[Node], size: int) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*nodes, *[(0, 0.0, 0, 0, True, 0.0)] * (size - len(nodes)), strict=True))
