"""Our own forward of LoRA layers: PEFT's numbers to the bit on a CPU, PEFT's names, and one switch."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from torch import Tensor, nn

from alignment_core.actors.lora_forward import AdapterSwitch, switched

ADAPTER = "default"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_out = nn.Linear(24, 16, bias=False), nn.Linear(16, 24)
        self.norm, self.conv = nn.LayerNorm(24), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.to_out(torch.tanh(self.to_q(self.norm(x))))


def adapted(alpha: float, **options: object) -> Attention:
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": alpha, "target_modules": ["to_q", "to_out"], **options}
    model = inject_adapter_in_model(LoraConfig(**config), Attention(), adapter_name=ADAPTER)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def outcome(model: nn.Module, around: Callable[[], AbstractContextManager[object]]) -> list[Tensor]:
    """Output and gradients."""
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2), requires_grad=True)
    with around():
        y = model(x)
    y.float().square().sum().backward()
    return [y.detach(), *[p.grad for p in (x, *model.parameters()) if p.grad is not None]]


@pytest.mark.parametrize("alpha", [4.0, 1.0, 6.0], ids=["scale 1", "scale 1/4", "scale 3/2"])
@pytest.mark.parametrize("around", [nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)], ids=["fp32", "bf16"])
def test_on_a_cpu_output_and_gradients_are_those_of_peft_to_the_bit(
    alpha: float, around: Callable[[], AbstractContextManager[object]]
) -> None:
    peft, own = adapted(alpha), adapted(alpha)
    assert switched(own, ADAPTER) is not None
    found, expected = outcome(own, around), outcome(peft, around)
    assert len(found) == len(expected) == 6
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_weights_in_half_precision_without_autocast_are_those_of_peft_too() -> None:
    peft, own = adapted(2.0), adapted(2.0)
    assert switched(own, ADAPTER) is not None
    found = []
    for model in (peft, own):
        for name, parameter in model.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.bfloat16()
        found.append(model(torch.randn(3, 24, generator=torch.Generator().manual_seed(3)).bfloat16()))
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert torch.equal(*found)


def test_names_and_files_stay_peft_s() -> None:
    peft, own = adapted(4.0), adapted(4.0)
    switched(own, ADAPTER)
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in peft.named_parameters()]
    one, other = (get_peft_model_state_dict(model, adapter_name=ADAPTER) for model in (own, peft))
    assert one.keys() == other.keys()


@contextmanager
def off_by_peft(model: nn.Module, switch: AdapterSwitch) -> Iterator[None]:
    layers = [module for module in model.modules() if hasattr(module, "enable_adapters")]
    for layer in layers:
        layer.enable_adapters(False)
    yield
    for layer in layers:
        layer.enable_adapters(True)


def off_by_switch(model: nn.Module, switch: AdapterSwitch) -> AbstractContextManager[None]:
    return switch.turned_to(None)


@pytest.mark.parametrize("off", [off_by_peft, off_by_switch])
def test_either_way_to_switch_off_leaves_the_base_alone(
    off: Callable[[nn.Module, AdapterSwitch], AbstractContextManager[None]],
) -> None:
    own, base = adapted(4.0), adapted(4.0)
    for name, parameter in base.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    switch = switched(own, ADAPTER)
    assert switch is not None
    x = torch.randn(3, 24)
    adapted_output = own(x)
    with off(own, switch):
        assert torch.equal(own(x), base(x))
    assert torch.equal(own(x), adapted_output)
    assert not torch.equal(adapted_output, base(x))


def test_the_switch_is_back_after_an_error() -> None:
    own = adapted(4.0)
    switch = switched(own, ADAPTER)
    assert switch is not None
    with pytest.raises(KeyError), switch.turned_to(None):
        raise KeyError
    assert switch.adapter == ADAPTER
    twin = copy.deepcopy(own)
    nn.init.ones_(twin.get_parameter("to_q.lora_B.default.weight"))
    x = torch.randn(1, 24)
    assert not torch.equal(twin(x), own(x))  # a copy reads its own weights


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True, "target_modules": ["to_out"]}],
    ids=["dora", "dropout", "bias"],
)
def test_layers_that_are_more_than_a_product_keep_peft_s_forward(options: dict[str, object]) -> None:
    assert switched(adapted(4.0, **options), ADAPTER) is None
    assert switched(Attention(), ADAPTER) is None


def test_a_layer_that_is_a_convolution_keeps_peft_s_forward_everywhere() -> None:
    assert switched(adapted(4.0, target_modules=["to_q", "conv"]), ADAPTER) is None
