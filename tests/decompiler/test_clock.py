"""Work ends within its budget: counted in looks at a clock that moves only when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import weightspace as ws
from weightspace import clock
from weightspace.decompiler.decompile import METHODS, Problem, attempt, decompile
from weightspace.decompiler.distortion import compressed, noisy, rotated
from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program

TICK = 0.01
"""Seconds that pass with each look."""
PROGRAM = Program.parse("""\
vocab = [0, 1, 2, 3, 4]
max_seq_len = 5
v1 = SequenceMap(x + y % 10, tokens, indices)
v2 = Select(PRED_LT, v1, tokens)
v3 = SelectorWidth(v2)
v4: numerical = Map(x > 1, v3)
v5: numerical = Aggregate(v2, v4)
v6 = Map(x > 0.5, v5)
return v6""")


class Ticking:
    """A clock that moves by one tick with each look."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.looks * TICK


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticking]:
    found = Ticking()
    monkeypatch.setattr(clock, "now", found)
    yield found


def weights() -> BareTransformer:
    return permuted(BareTransformer.of(compile_program(PROGRAM, mode="tracr_compat")), 1)


@pytest.mark.parametrize("budget", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("kind", ["clean", "rotated", "compressed", "noisy"])
def test_decompiling_ends_a_second_after_its_budget_at_the_latest(kind: str, budget: float, ticking: Ticking) -> None:
    bare = {
        "clean": lambda: weights(),
        "rotated": lambda: rotated(weights(), 0),
        "compressed": lambda: compressed(weights(), 0, 0.75),
        "noisy": lambda: noisy(weights(), 0, 0.1),
    }[kind]()
    ticking.looks = 0
    found = decompile(bare, budget)
    assert ticking.looks * TICK <= 1.1 * budget + 1
    assert found.seconds <= 1.1 * budget + 1
    assert kind != "clean" or budget < 3 or found.status == "certified"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_looks_at_the_clock_and_ends_when_time_is_over(method: str, ticking: Ticking) -> None:
    problem = Problem(noisy(weights(), 0, 0.1))
    problem.aligned  # noqa: B018 - not what is counted
    ticking.looks = 0
    attempt(problem, method, 60 * TICK)  # type: ignore[arg-type]
    assert 5 <= ticking.looks <= 160


@pytest.mark.usefixtures("ticking")
def test_the_lifter_and_the_certificate_stop_when_time_is_over() -> None:
    bare = weights()
    problem = Problem(bare)
    problem.aligned  # noqa: B018 - not what is counted
    stopped = attempt(problem, "lifter", 10 * TICK)
    assert stopped.program is None and stopped.trace == ("lifter: its time was over",)
    with pytest.raises(clock.OutOfTime), clock.limited(2 * TICK):
        certify(PROGRAM, bare)


def test_a_program_that_is_found_as_time_ends_is_given_and_proved_in_what_is_left(ticking: Ticking) -> None:
    bare = weights()
    decompile(bare, 1000.0, methods=("lifter",))
    start = ticking.looks
    problem = Problem(bare)
    problem.aligned  # noqa: B018
    attempt(problem, "lifter", 1000.0)
    needed = (ticking.looks - start + 5) * TICK
    found = decompile(bare, needed, methods=("lifter",))
    assert found.status == "certified" and found.program is not None


def test_a_proof_for_which_there_is_no_time_leaves_a_best_guess_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = weights()

    def never(*_: object, **__: object) -> None:
        raise clock.OutOfTime

    for proof in ("certify_rewritten", "behaviour", "distance"):
        monkeypatch.setattr(f"weightspace.decompiler.decompile.{proof}", never)
    found = decompile(bare, 20.0, methods=("lifter",))
    assert found.program is not None and found.certificate is None and found.behaviour is None
    assert found.status == "best_guess" and any("longer budget" in note for note in found.notes)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(budget: float) -> None:
    with pytest.raises(RaspError, match="a number of seconds above 0"):
        decompile(weights(), budget)
    with pytest.raises(RaspError, match="a number of seconds above 0"):
        ws.decompile(weights(), budget=budget)


@pytest.mark.usefixtures("ticking")
def test_an_inner_limit_never_outlives_an_outer_one() -> None:
    with clock.limited(1.0):
        with clock.limited(100.0):
            assert clock.left() <= 1.0
        with pytest.raises(clock.OutOfTime), clock.limited(2 * TICK):
            for _ in range(10):
                clock.look()
        clock.look()
