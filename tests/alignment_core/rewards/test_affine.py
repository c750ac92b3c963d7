import pytest
import torch

from alignment_core.rewards.affine import collapse
from tests.alignment_core.rewards.by_hand import head, head_state


def test_five_layers_are_one_affine_map() -> None:
    state = head_state(768)
    x = torch.randn(16, 768, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, bias = collapse(state)
    assert (weight.shape, bias.shape) == ((1, 768), (1,))
    torch.testing.assert_close((x @ weight.double().T + bias)[:, 0], head(state, x), atol=1e-6, rtol=1e-6)


def test_the_order_is_that_of_the_numbers_not_of_the_file() -> None:
    state = head_state(8)
    backwards = dict(reversed(state.items()))
    assert torch.equal(collapse(state)[0], collapse(backwards)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.4.bias": None}, r"lacks layers\.4\.bias"),
        ({"layers.9.weight": torch.zeros(1, 1)}, r"holds layers\.9\.weight"),
        ({"layers.2.weight": torch.zeros(128, 99)}, r"layers\.2 is \[128, 99\] and \[128\], expected \[128, 1024\]"),
        ({"layers.7.bias": torch.zeros(2)}, r"layers\.7 is"),
    ],
)
def test_another_head_is_refused(change: dict, message: str) -> None:
    state = {name: tensor for name, tensor in {**head_state(8), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        collapse(state)
