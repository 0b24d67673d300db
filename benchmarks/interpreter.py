"""What a program gives for every input of vocabulary 5 and length up to 5, against the reference input by input."""

from benchmarks.record import keep, paired
from weightspace.rasp.batch import Batch, all_inputs
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    indices,
    tokens,
)
from weightspace.rasp.program import Program

VOCABULARY, LENGTH, CALLS = 5, 5, 20


def program() -> Program:
    """Twelve operations, of each kind one or more; it can be compiled."""
    small = Map("x < 3", tokens, encoding="numerical")
    earlier = Aggregate(Select(tokens, indices, "LEQ"), small, encoding="numerical")
    product = SequenceMap("x * y", Map("x + 1", tokens), indices)
    counts = SelectorWidth(Select(tokens, tokens, "EQ"))
    weighted = LinearSequenceMap(earlier, Map("x * 2", small, encoding="numerical"), 2, -1)
    return Program.of(SequenceMap("x + y", Map("int(x)", weighted), SequenceMap("x and y", counts, product)))


def main() -> None:
    chosen, vocab = program(), range(VOCABULARY)
    batch, inputs = Batch.every(vocab, LENGTH), all_inputs(vocab, LENGTH)
    if evaluate_batch(chosen, batch).lists() != [evaluate(chosen, entry) for entry in inputs]:
        raise AssertionError("the batch disagrees with the reference")

    def ours() -> None:
        for _ in range(CALLS):
            evaluate_batch(chosen, batch)

    def plain() -> None:
        for entry in inputs:
            evaluate(chosen, entry)

    ours_s, plain_s, ratio = paired(ours, plain)
    keep(
        "interpreter",
        {
            "operations": len(chosen),
            "inputs": len(inputs),
            "batch_ms": round(1000 * ours_s / CALLS, 3),
            "batch_inputs_per_s": round(CALLS * len(inputs) / ours_s),
            "reference_ms": round(1000 * plain_s, 1),
            "reference_inputs_per_s": round(len(inputs) / plain_s),
            "ratio": round(CALLS * ratio),
            "targets": "under 5 ms for 3,905 inputs on one core",
        },
    )


if __name__ == "__main__":
    main()
