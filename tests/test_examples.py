"""The scripts among the examples, run as a reader runs them."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TO_TRANSFORMER_LENS = EXAMPLES / "to_transformer_lens.py"
IN_NNSIGHT = EXAMPLES / "interchange_in_nnsight.py"
WITHOUT = """
import runpy, sys
sys.modules['transformer_lens'] = sys.modules['nnsight'] = None
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""
"""Runs a script as if neither library were installed, whether it is or not."""

TWO_HEADS = """
vocab = ['a', 'b', 'c']
max_seq_len = 4
causal = True
same = Select(PRED_EQ, tokens, tokens)
all = Select(PRED_TRUE, tokens, tokens)
equal = SelectorWidth(same)
length = SelectorWidth(all)
rest = SequenceMap(x - y, length, equal)
return rest
"""
"""At every place, how many of the tokens so far are others than the one there."""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )


def printed(output: str) -> list[tuple[list[Any], list[Any]]]:
    """The inputs and answers that the script has printed."""
    pairs = [line.split(" -> ") for line in output.splitlines() if " -> " in line]
    return [(ast.literal_eval(tokens.strip()), ast.literal_eval(answer)) for tokens, answer in pairs]


needs_transformer_lens = pytest.mark.skipif(
    find_spec("transformer_lens") is None, reason="needs TransformerLens, which nothing else needs"
)


@needs_transformer_lens
@pytest.mark.parametrize("program", sorted(path.name for path in EXAMPLES.glob("*.rasp")))
def test_transformer_lens_computes_what_the_compiled_transformer_computes(program: str) -> None:
    done = run(TO_TRANSFORMER_LENS, EXAMPLES / program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "layer 0 MLP" in done.stdout and "each row is a query" in done.stdout


@needs_transformer_lens
def test_heads_side_by_side_and_a_causal_mask_arrive_in_transformer_lens(tmp_path: Path) -> None:
    (tmp_path / "rest.rasp").write_text(TWO_HEADS)
    done = run(TO_TRANSFORMER_LENS, tmp_path / "rest.rasp")
    assert done.returncode == 0, done.stderr
    assert "2 heads" in done.stdout
    for tokens, answer in printed(done.stdout):
        so_far = [tokens[: place + 1] for place in range(len(tokens))]
        assert answer == [len(before) - before.count(before[-1]) for before in so_far]


@needs_transformer_lens
def test_transformer_lens_sorts() -> None:
    done = run(TO_TRANSFORMER_LENS)
    assert done.returncode == 0, done.stderr
    answered = printed(done.stdout)
    assert len(answered) == 5
    assert all(answer == sorted(tokens) for tokens, answer in answered)


@needs_transformer_lens
def test_a_program_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    done = run(TO_TRANSFORMER_LENS, tmp_path / "none.rasp")
    assert done.returncode == 1
    assert "none.rasp" in done.stderr and done.stderr.count("\n") == 1


def test_without_transformer_lens_the_example_says_what_to_install() -> None:
    done = run("-c", WITHOUT, TO_TRANSFORMER_LENS)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("this needs TransformerLens: pip install ") and done.stderr.count("\n") == 1


@pytest.mark.skipif(find_spec("nnsight") is None, reason="needs nnsight, which nothing else needs")
def test_a_variable_is_put_into_another_input_in_nnsight() -> None:
    done = run(IN_NNSIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" sorted as if it were ") == 10


def test_without_nnsight_the_example_says_what_to_install() -> None:
    done = run("-c", WITHOUT, IN_NNSIGHT)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "this example needs nnsight: pip install nnsight\n"
