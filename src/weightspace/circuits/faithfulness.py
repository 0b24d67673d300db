"""How much of a transformer's performance a circuit keeps: faithfulness, and MIB's two areas under its curve."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from weightspace.circuits.attribution import Metric
from weightspace.circuits.circuit import Circuit
from weightspace.circuits.graph import Graph
from weightspace.circuits.patching import Written, run_circuit
from weightspace.errors import NetworkError
from weightspace.transformers.trained import Inputs, TrainedTransformer

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the edges, at which MIB measures faithfulness."""


@dataclass(frozen=True)
class Curve:
    """Faithfulness of ever larger circuits (MIB, Mueller et al. 2025, section 3).

    Attributes:
        shares: of the edges that were asked for.
        edges: how many were left after pruning.
        faithfulness: 1 where a circuit performs as the transformer, 0 where as the transformer with every edge removed.
    """

    shares: tuple[float, ...]
    edges: tuple[int, ...]
    faithfulness: tuple[float, ...]

    @property
    def cpr(self) -> float:
        """Integrated circuit performance ratio: the area under the curve; higher is better."""
        return self._area(list(self.faithfulness))

    @property
    def cmd(self) -> float:
        """Integrated circuit-model distance: the area between the curve and 1; 0 is best."""
        return self._area([abs(1 - each) for each in self.faithfulness])

    def _area(self, heights: list[float]) -> float:
        points = pairwise(zip(self.shares, heights, strict=True))
        return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in points)


def faithfulness(
    transformer: TrainedTransformer, inputs: Inputs, circuit: Circuit, other: Written, metric: Metric
) -> float:
    """(m(circuit) - m(nothing)) / (m(transformer) - m(nothing)), with m the metric's mean over inputs.

    Args:
        other: what edges outside the circuit carry, as for `run_circuit`.
    Raises:
        NetworkError: if the metric is the same with every edge removed, so that there is nothing to explain.
    """
    return _faithfulness(transformer, inputs, [circuit], other, metric)[0]


def faithfulness_curve(
    transformer: TrainedTransformer,
    inputs: Inputs,
    circuit: Circuit,
    other: Written,
    metric: Metric,
    *,
    shares: tuple[float, ...] = SHARES,
    absolute: bool = True,
    nodes: bool = False,
) -> Curve:
    """Faithfulness of the circuits with the highest scores.

    Args:
        shares: of all edges (or nodes), rising.
        absolute: whether the size of a score counts and not its sign, as in MIB for CMD.
        nodes: whether nodes are chosen and not edges.
    """
    if not shares or not 0 <= shares[0] <= shares[-1] <= 1 or any(low >= high for low, high in pairwise(shares)):
        raise NetworkError(f"shares rise from 0 to 1, not {shares}")
    graph = circuit.graph
    if nodes:
        circuits = [circuit.top_nodes(int(share * (len(graph.sources) - 1)), absolute=absolute) for share in shares]
    else:
        circuits = [circuit.top(int(share * graph.edges), absolute=absolute) for share in shares]
    found = _faithfulness(transformer, inputs, circuits, other, metric)
    return Curve(shares, tuple(int(each.kept.sum()) for each in circuits), tuple(found))


def _faithfulness(
    transformer: TrainedTransformer, inputs: Inputs, circuits: list[Circuit], other: Written, metric: Metric
) -> list[float]:
    graph = Graph.of(transformer.shape)
    if any(circuit.graph != graph for circuit in circuits):
        raise NetworkError(
            "the circuit is one of a transformer of another shape: layers, heads and width have to be equal"
        )

    def performance(circuit: Circuit) -> float:
        return float(metric(run_circuit(transformer, inputs, circuit.kept, other)).mean())

    whole = float(metric(transformer.run(inputs).logits).mean())
    nothing = performance(Circuit.of(graph, ()))
    if abs(whole - nothing) <= 1e-6 * max(1.0, abs(whole)):  # rounding
        raise NetworkError(f"the metric is {whole:g} with every edge and with none: there is nothing to explain")
    return [(performance(circuit) - nothing) / (whole - nothing) for circuit in circuits]
