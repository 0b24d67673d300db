"""Programs on rungs of the ladder, held against the weights by interventions."""

from dataclasses import replace
from pathlib import Path

from weightspace.decompiler.explained import explained
from weightspace.decompiler.ladder import make_rung
from weightspace.experiments.ladder import TRUTH, LadderConfig, run_ladder, table, together
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SequenceMap, indices, tokens
from weightspace.rasp.program import Program


def planted() -> Program:
    """Two S-ops come out of the first MLP and go with each other, as both are made of the token."""
    both = SequenceMap("x and y", tokens, indices)
    small = Map("x < 3", Map("x + 1", tokens), encoding="numerical")
    return Program.of(Aggregate(Select(both, both, "LEQ"), small, encoding="numerical"), vocab=range(5), max_seq_len=5)


def test_s_ops_that_one_mlp_writes_are_told_apart() -> None:
    program = planted()
    found = explained(BareTransformer.of(compile_program(program)), program)
    assert (found.sops, found.located) == (4, 4)
    assert found.whole


def test_interventions_reject_a_program_that_the_weights_do_not_compute() -> None:
    program = planted()
    other = Program.parse(str(program).replace("LEQ", "GT"))
    found = explained(BareTransformer.of(compile_program(program)), other)
    assert found.located < found.sops
    assert not found.whole


def test_a_rotated_network_holds_its_program_as_well() -> None:
    product = SequenceMap("x * y", tokens, indices)
    program = Program.of(Map("x + 1", product), vocab=range(3), max_seq_len=3)
    found = explained(make_rung(compile_program(program), "rotated", 0), program)
    assert found.whole


def test_the_ladder_says_how_much_of_a_program_interventions_find(tmp_path: Path) -> None:
    config = LadderConfig(count=1, rungs=("permuted",), methods=("lifter",), budget=5.0, interventions=True)
    rows = run_ladder(config, tmp_path, show=False)
    assert [row.method for row in rows] == ["lifter", TRUTH]
    assert all(row.sops is not None and row.scrubbed is not None for row in rows)
    assert {row.method for row in together(rows)} == {"together"}
    assert "equal and explained" in table(rows)
    # without interventions the rows that are there are taken as they are
    again = run_ladder(replace(config, interventions=False), tmp_path, show=False)
    assert [row.method for row in again] == ["lifter"]
