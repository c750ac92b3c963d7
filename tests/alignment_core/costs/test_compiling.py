"""What an estimate says of compiling: its graphs, its seconds, and nothing where it does not pay."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from alignment_core.actors.compiled_blocks import counted_graphs
from alignment_core.costs.compiling import SAVED_SHARE, num_graphs
from alignment_core.costs.layers import layers_of
from alignment_core.costs.rates import rates_of_card
from alignment_core.costs.seconds import Duration, duration_of
from alignment_core.costs.work import work_of
from alignment_core.spec import JobSpec
from tests.alignment_core.costs.test_memory import PAIRS, published


def estimated(**training: object) -> Duration:
    values = {
        "model": "a",
        "method": PAIRS,
        "training": {"batch_size": 16, "gradient_accumulation_steps": 4, **training},
    }
    spec = JobSpec.model_validate(values).resolved("sd")
    work = work_of(spec, published("sd"), "sd", num_examples=1000, num_prompts=0)
    assert work is not None
    return duration_of(work, rates_of_card("NVIDIA H100", is_gpu=True, is_half=True), None)


def test_graphs_are_the_shapes_of_blocks_that_a_forward_meets() -> None:
    with torch.device("meta"):
        network = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        x, text = torch.zeros(2, 4, 64, 64), torch.zeros(2, 77, 768)
        with torch.no_grad(), counted_graphs([network]) as found:
            network(x, torch.zeros(2), text)
    counted = num_graphs(layers_of(published("sd"), "sd", 512), has_reference=False)
    assert counted == pytest.approx(len(found), abs=2)
    assert num_graphs(layers_of(published("sd"), "sd", 512), has_reference=True) == 2 * counted


def test_auto_takes_its_seconds_where_they_pay_and_none_where_they_do_not() -> None:
    short, off = (estimated(steps=5, compile=asked).phases for asked in ("auto", "off"))
    assert short == off
    assert "compiling" in estimated(steps=5, compile="on").phases
    long, plain = (estimated(steps=5000, compile=asked).phases for asked in ("auto", "off"))
    assert 60 < long["compiling"].expected < 300  # 142 s were measured
    assert long["training"].expected == pytest.approx((1 - SAVED_SHARE) * plain["training"].expected, rel=0.01)
    assert long["training"].high == plain["training"].high  # it may save nothing
