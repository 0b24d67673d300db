"""The checks of annotations under test: as many as jaxtyping's own, whichever of the two makes them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np
import pytest

from tests.typechecks import _by_jaxtyping, _checked

SAMPLE = """
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from decimal import Decimal


def plain(x: int, *rest: str, last: float = 0.5) -> str:
    return "" if x else x


def nested(base: int) -> Callable[[int], int]:
    def add(x: int, more: int = base) -> int:
        return None if x < 0 else x + base + more

    return add


def shaped(x: Float[np.ndarray, "n"], y: list[Float[np.ndarray, "n"]]) -> Float[np.ndarray, "n n"]:
    return x[:, None] * y[0]


def counted(x: int) -> Iterator[int]:
    yield x


def exact(x: Decimal) -> Decimal:
    return x


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0

    @property
    def far(self) -> bool:
        return self.x > 3 or self.x

    @classmethod
    def of(cls, x: int) -> Point:
        return cls(x)

    @staticmethod
    def zero(x: int) -> int:
        return 0
"""


@pytest.fixture(scope="module", params=["by either", "by jaxtyping alone"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("sample")
    (folder / "checked_sample.py").write_text(SAMPLE)
    assert jaxtyping.jaxtyped is _checked
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        if request.param == "by jaxtyping alone":
            patch.setattr(jaxtyping, "jaxtyped", _by_jaxtyping)
        with jaxtyping.install_import_hook("checked_sample", "beartype.beartype"):
            yield importlib.import_module("checked_sample")
    del sys.modules["checked_sample"]


def refused(call: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        call(*args, **kwargs)
    except jaxtyping.TypeCheckError:
        return True
    return False


def test_what_contradicts_an_annotation_is_refused(sample: ModuleType) -> None:
    assert not refused(sample.plain, 1, "a", last=2.0)
    assert refused(sample.plain, "1") and refused(sample.plain, 1, 2) and refused(sample.plain, 1, last="x")
    assert refused(sample.plain, 0)  # what it returns
    assert not refused(sample.Point, 1, 2.0) and refused(sample.Point, "1") and refused(sample.Point, 1, y="2")
    assert sample.Point(5).far and refused(lambda: sample.Point(1).far)
    assert sample.Point.of(2).x == 2 and refused(sample.Point.of, "2")
    assert sample.Point.zero(2) == 0 and refused(sample.Point.zero, "2")
    assert list(sample.counted(2)) == [2] and refused(sample.counted, "2")
    assert sample.exact(1) == 1  # what only type checkers import cannot be looked up


def test_sizes_of_named_axes_must_agree(sample: ModuleType) -> None:
    assert sample.shaped(np.ones(3), [np.ones(3)]).shape == (3, 3)
    assert refused(sample.shaped, np.ones(3), [np.ones(2)]) and refused(sample.shaped, np.ones((3, 1)), [np.ones(3)])


def test_functions_within_functions_keep_their_own_values_and_are_checked_each(sample: ModuleType) -> None:
    adds = [sample.nested(base) for base in (1, 10, 100)]
    assert [add(1) for add in adds] == [3, 21, 201] and [add(1, 1) for add in adds] == [3, 12, 102]
    assert all(refused(add, "1") and refused(add, 1, "1") and refused(add, -1) for add in adds)
