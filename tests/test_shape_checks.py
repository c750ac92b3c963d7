"""What the tests check at every call of a function: the shapes that it names, and the types of all else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from alignment_core.actors import arithmetic
from alignment_core.diffusion import formulas
from tests.shape_checks import jaxtyped

checked = jaxtyped(typechecker=beartype)


@checked
def added(one: Float[Tensor, "b"], other: Float[Tensor, "b"] | None) -> Tensor:
    return one if other is None else one + other[:1]


@checked
def applied(function: Callable[[Float[Tensor, "b"]], Tensor], value: Float[Tensor, "b"]) -> Tensor:
    return function(value)


@checked
def doubled(value: Tensor) -> Tensor:
    return value.tolist() if value.ndim else value * 2  # pyright: ignore[reportReturnType]


@checked
@dataclass(frozen=True)
class Plain:
    size: int


@checked
@dataclass(frozen=True)
class Pair:
    one: Float[Tensor, "b"]
    other: Float[Tensor, "b"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: added(torch.ones(2), torch.ones(3)),
        lambda: added(torch.ones(2, 2), None),
        lambda: applied(doubled, torch.ones(2, 2)),
        lambda: Pair(torch.ones(2), torch.ones(3)),
    ],
)
def test_a_shape_that_is_not_the_one_named_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()


@pytest.mark.parametrize("call", [lambda: doubled(2.0), lambda: doubled(torch.ones(2)), lambda: Plain("2")])  # pyright: ignore[reportArgumentType]
def test_a_type_that_is_not_the_one_named_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        call()


def test_what_is_right_passes_and_nothing_is_checked_where_checks_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert added(torch.ones(2), torch.ones(2)).tolist() == [2.0, 2.0]
    assert doubled(torch.tensor(1.0)) == 2.0
    assert (Plain(2).size, Pair(torch.ones(2), torch.ones(2)).one.shape) == (2, (2,))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    wrong: Any = 2.0
    assert Plain(wrong).size == 2.0
    assert doubled(torch.ones(2)) == [1.0, 1.0]


def test_the_packages_that_touch_tensors_are_checked() -> None:
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(TypeCheckError):
        formulas.add_noise(images, images, torch.zeros(3))
    wrong: Any = "float32"
    with pytest.raises(BeartypeCallHintViolation):
        arithmetic.autocast_to(wrong, torch.device("cpu"))
