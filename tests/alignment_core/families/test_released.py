"""What a step does not need waits on the host, in the bits that it was loaded with, and comes back while it is used.

There is no second device here: `cpu:0` stands for one, since what is sent there from `cpu` is a copy.
"""

from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from alignment_core.families.family import Family
from alignment_core.families.flux import Flux
from alignment_core.families.released import Released
from alignment_core.families.sd import StableDiffusion
from alignment_core.families.sd3 import StableDiffusion3
from alignment_core.families.sdxl import StableDiffusionXL
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.tiny import tiny_spec

torch.set_num_threads(1)

DEVICE = torch.device("cpu:0")
PROMPTS, SEEDS = ["a red circle", "a blue square"], [1, 2]

AnyFamily = StableDiffusion | StableDiffusionXL | StableDiffusion3 | Flux


# --- networks --------------------------------------------------------------------------------------------------------


def addresses(network: nn.Module) -> list[int]:
    return [one.data_ptr() for one in (*network.parameters(), *network.buffers())]


def test_what_is_released_is_on_the_device_while_it_is_in_use_and_no_longer() -> None:
    network = nn.BatchNorm1d(3)
    released = Released([network], DEVICE)
    with released.in_use():
        before = addresses(network)
    assert (addresses(network), released.away) == (before, ())
    released.release()
    on_host, values = addresses(network), {name: one.clone() for name, one in network.state_dict().items()}
    assert [one.data_ptr() for one in released.away] == on_host
    with released.in_use():
        assert not set(addresses(network)) & set(on_host)
        assert released.away == ()
        assert all(torch.equal(one, values[name]) for name, one in network.state_dict().items())
        with released.in_use():
            pass
        assert not set(addresses(network)) & set(on_host), "the outer use goes on"
    assert addresses(network) == on_host


def test_what_is_released_comes_home_from_an_error() -> None:
    network = nn.Linear(2, 2)
    released = Released([network], DEVICE)
    released.release()
    on_host = addresses(network)
    with pytest.raises(ValueError, match="in vain"), released.in_use():
        raise ValueError("in vain")
    assert addresses(network) == on_host


def test_two_threads_use_it_one_after_the_other() -> None:
    network = nn.Linear(2, 2)
    released = Released([network], DEVICE)
    released.release()
    found = []

    def use() -> None:
        with released.in_use():
            found.append(addresses(network) != [one.data_ptr() for one in released._on_host or ()])  # pyright: ignore

    other = Thread(target=use)
    with released.in_use():
        other.start()
        other.join(timeout=0.05)
        assert found == []
    other.join(timeout=10)
    assert found == [True]


def test_weights_that_two_modules_share_stay_shared() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    cast(Any, network[1]).weight = network[0].weight
    released = Released([network], DEVICE)
    released.release()
    with released.in_use():
        assert network[0].weight is network[1].weight


# --- families --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(TINY))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


def family_of(model: Path) -> AnyFamily:
    dtype = torch.float32
    found = load_model(LocalSource(path=str(model)), device=DEVICE, frozen_dtype=dtype, denoiser_dtype=dtype)
    assert isinstance(found, AnyFamily)
    return found


def drawn(family: Family, scale: float) -> Tensor:
    steps = {"num_inference_steps": 2, "guidance_scale": scale}
    return family.sample(family.denoiser, PROMPTS, SEEDS, **cast(Any, steps), autocast=nullcontext)


def told(family: AnyFamily) -> dict[str, Tensor]:
    """All that text encoders and VAE are asked for in a run."""
    side = family.resolution
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = family.encode_images(images)
    return {
        **family.encode_prompts(PROMPTS),
        **{f"empty {name}": value for name, value in family.encode_empty().items()},
        "mean": mean,
        "std": std,
        "decoded": family.decode(mean),
        "drawn": drawn(family, 1.0),
        "guided": drawn(family, 3.0),
    }


def test_encoders_and_vae_that_have_left_say_the_same_to_the_bit(model: Path) -> None:
    family, others = family_of(model), family_of(model)
    others.release_encoders()
    others.release_vae()
    mine, theirs = told(family), told(others)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


def test_encoders_are_on_the_device_while_they_read_and_the_vae_while_it_decodes(model: Path) -> None:
    family = family_of(model)
    readers = [one for name, one in family.components().items() if name.startswith("text_encoder")]
    family.release_encoders()
    family.release_vae()
    at_rest = {one: addresses(one)[0] for one in (*readers, family.vae)}
    seen: list[tuple[str, bool, bool]] = []

    def look(what: str) -> Any:
        return lambda *_: seen.append((what, *are_there()))

    def are_there() -> tuple[bool, bool]:
        *texts, image = (addresses(one)[0] != place for one, place in at_rest.items())
        return all(texts), image

    for one in readers:
        one.register_forward_hook(look("reading"))
    family.vae.decoder.register_forward_hook(look("decoding"))
    family.denoiser.register_forward_hook(look("drawing"))
    drawn(family, 3.0)
    assert set(seen) == {("reading", True, False), ("drawing", False, False), ("decoding", False, True)}
    assert are_there() == (False, False)


# --- runs ------------------------------------------------------------------------------------------------------------


def away(spec: Any, cache_dir: Path) -> tuple[bool, bool]:
    """Whether text encoders and VAE are away once a run is loaded."""
    family = loaded(spec, cache_dir).family
    assert isinstance(family, StableDiffusion)
    return bool(family.texts.away), bool(family.images.away)


def test_a_run_on_cached_latents_needs_neither(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> None:
    assert away(tiny_spec(tiny_model, tiny_pairs), cache_dir) == (True, True)


def test_images_that_are_others_at_each_visit_keep_the_vae(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs)
    transform = spec.method.transform.model_copy(update={"horizontal_flip": True})  # pyright: ignore
    flipped = spec.model_copy(update={"method": spec.method.model_copy(update={"transform": transform})})
    assert away(flipped, cache_dir) == (True, False)


def test_what_draws_keeps_the_vae(tiny_model: Path, cache_dir: Path) -> None:
    assert away(online_spec(tiny_model, METHODS["tailorpo"]), cache_dir) == (True, False)
