"""What a spec asks for is what the loaded run has: every value here differs from its default."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from torch import Tensor

from alignment_core import JobSpec, align
from alignment_core.diffusion.formulas import scaled_linear_abar
from alignment_core.events import Event, StepCompleted
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.model import load_model
from alignment_core.load.run import load_run
from alignment_core.methods.diffusion_dpo import DiffusionDPO, PairLoss, cdpo_loss, dmpo_loss, robust_loss
from alignment_core.spec import LocalSource
from alignment_core.spec.places import Sources
from alignment_core.training.run import Run
from demo.assets import ASSETS
from tests.alignment_core.tiny import png, save_pairs, tiny_spec

LABELS = [1.0, 0.5, 0.8]


def loaded(spec: JobSpec, cache_dir: Path) -> Run:
    """The run of a spec, loaded and not begun."""
    spec = spec.resolved("sd")

    def last(run: list[Run]) -> Iterator[Event]:
        run.append((yield from load_run(spec, Sources(), new_accelerator(spec), cache_dir)))

    found: list[Run] = []
    list(last(found))
    return found[0]


def dpo(run: Run) -> DiffusionDPO:
    assert isinstance(run.method, DiffusionDPO)
    return run.method


def method(pairs: Path, /, **changes: object) -> dict[str, object]:
    return {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}, **changes}


@pytest.fixture(scope="module")
def labelled_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of 16x16 images, each with a prompt of its own group: four sure, four tied, four of label 0.8."""
    path = tmp_path_factory.mktemp("labelled") / "pairs.parquet"
    table = {
        "prompt": [f"a {color} {shape}" for color in ("red", "green", "blue") for shape in ("circle", "square") * 2],
        "chosen": [png((200, 120, 60), noise_seed=i) for i in range(12)],
        "rejected": [png((40, 40, 40), noise_seed=100 + i) for i in range(12)],
        "label": [LABELS[i % 3] for i in range(12)],
        "group_id": [f"{i}" for i in range(12)],
    }
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="module")
def run(tiny_v_model: Path, labelled_pairs: Path, cache_dir: Path) -> Run:
    asked = method(
        labelled_pairs,
        beta=123.0,
        loss="cdpo",
        label_smoothing=0.3,
        ties="keep",
        caption_dropout=0.4,
        reduction="sum",
        half_factor=False,
        v_rescale="abar",
    )
    training = {
        "steps": 10,
        "batch_size": 3,
        "gradient_accumulation_steps": 5,
        "learning_rate": 2e-3,
        "warmup_steps": 4,
        "schedule": "linear",
        "adam_beta1": 0.8,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "weight_decay": 0.3,
        "validation_fraction": 0.3,
    }
    adapter = {"type": "lora", "rank": 3, "alpha": 5.0, "target_modules": ["to_q"]}
    spec = tiny_spec(tiny_v_model, labelled_pairs, method=asked, training=training, adapter=adapter, seed=11)
    return loaded(spec, cache_dir)


def test_the_method_has_the_options_of_the_spec(run: Run) -> None:
    found = dpo(run)
    assert (found.beta, found.reduction, found.half_factor, found.in_eps_units) == (123.0, "sum", False, True)
    draws = found.draws
    assert (draws.caption_dropout, draws.batch_size, draws.accumulation, draws.seed) == (0.4, 3, 5, 11)
    h = torch.tensor([1.5, -1.5])
    assert torch.equal(found.loss_of(h), cdpo_loss(h, 0.3))


def test_validation_has_the_options_of_the_method_and_every_caption(run: Run) -> None:
    found = run.validation
    assert isinstance(found, DiffusionDPO)
    assert (found.beta, found.reduction, found.half_factor, found.in_eps_units) == (123.0, "sum", False, True)
    assert (found.draws.caption_dropout, found.draws.seed) == (0.0, 11)
    h = torch.tensor([1.5, -1.5])
    assert torch.equal(found.loss_of(h), cdpo_loss(h, 0.3))


def test_the_optimiser_has_the_options_of_the_spec(run: Run) -> None:
    (group,) = run.optimizer.param_groups
    expected = {"lr": 2e-3, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.3}
    assert {name: group[name] for name in expected} == expected
    assert isinstance(run.optimizer.optimizer, torch.optim.AdamW)
    assert len(group["params"]) == len(run.actors.trainable())


def test_the_learning_rate_warms_up_and_falls_as_the_spec_says(run: Run) -> None:
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [run.learning_rate_at(index) / 2e-3 for index in range(10)] == pytest.approx(expected)


def test_the_adapter_has_the_options_of_the_spec(run: Run) -> None:
    config = run.actors.denoiser.peft_config["default"]
    assert (config.r, config.lora_alpha) == (3, 5.0)
    assert all(".to_q." in name for name in run.actors.trainable())


def test_labels_reach_the_pairs_and_ties_only_when_they_are_kept(
    run: Run, tiny_model: Path, labelled_pairs: Path, cache_dir: Path
) -> None:
    assert isinstance(run.validation, DiffusionDPO)
    kept = torch.cat([dpo(run).draws.pairs.labels, run.validation.draws.pairs.labels])
    assert sorted(kept.tolist()) == pytest.approx([0.5] * 4 + [0.8] * 4 + [1.0] * 4)
    training = {"validation_fraction": 0.0}
    spec = tiny_spec(tiny_model, labelled_pairs, method=method(labelled_pairs, ties="drop"), training=training)
    dropped = dpo(loaded(spec, cache_dir)).draws.pairs.labels
    assert sorted(dropped.tolist()) == pytest.approx([0.8] * 4 + [1.0] * 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loss": "cdpo"}, lambda h: cdpo_loss(h, 0.1)),
        ({"loss": "robust", "label_smoothing": 0.2}, lambda h: robust_loss(h, 0.2)),
        ({"loss": "dmpo", "dmpo_alpha": 0.05}, lambda h: dmpo_loss(h, 0.05)),
        ({"loss": "dmpo"}, lambda h: dmpo_loss(h, 0.01)),
    ],
    ids=["cdpo", "robust", "dmpo", "dmpo by default"],
)
def test_the_loss_is_the_one_asked_for(
    options: dict[str, object], expected: PairLoss, tiny_model: Path, labelled_pairs: Path, cache_dir: Path
) -> None:
    spec = tiny_spec(tiny_model, labelled_pairs, method=method(labelled_pairs, **options))
    h = torch.tensor([1.5, -1.5])
    assert torch.equal(dpo(loaded(spec, cache_dir)).loss_of(h), expected(h))


def test_a_gradient_is_clipped_where_the_spec_says(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    def margin(max_grad_norm: float) -> float:
        training = {
            "steps": 2,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.1,
            "adam_epsilon": 1.0,  # so large that Adam's steps are as small as the gradients
            "max_grad_norm": max_grad_norm,
        }
        spec = tiny_spec(tiny_model, tiny_pairs, training=training)
        events = align(spec, tmp_path / str(max_grad_norm), cache_dir=cache_dir)
        return [event.metrics["margin"] for event in events if isinstance(event, StepCompleted)][-1]

    assert abs(margin(1e-9)) < 1e-3 * abs(margin(1e9))


@pytest.mark.parametrize(("checkpointing", "num_passes"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_gradient_checkpointing_runs_blocks_again_for_the_policy_alone(
    kind: str, checkpointing: bool, num_passes: int, tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    training = {"gradient_checkpointing": checkpointing}
    run = loaded(tiny_spec(tiny_model, tiny_pairs, training=training, adapter={"type": kind}), cache_dir)
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([500]), run.family.encode_prompts(["a red circle"])

    def count_passes(denoiser: torch.nn.Module, passes: list[None]) -> None:
        # The last block, since no gradient is asked of what comes before the first adapter; and before it, since a
        # second pass ends as soon as it has what the gradient needs.
        block = [module for module in denoiser.modules() if isinstance(module, ResnetBlock2D)][-1]
        block.register_forward_pre_hook(lambda *_: passes.append(None))

    of_policy: list[None] = []
    count_passes(run.actors.denoiser, of_policy)
    run.actors.predict_policy(*inputs).sum().backward()
    assert len(of_policy) == num_passes
    of_reference: list[None] = []
    with run.actors.initial_denoiser() as initial:
        count_passes(initial, of_reference)
    run.actors.predict_reference(*inputs)
    assert len(of_reference) == 1


# --- the data ------------------------------------------------------------------------------------------------------


def pixels_of(image: bytes) -> Tensor:
    """An image file as `[1, 3, H, W]` in [-1, 1]."""
    levels = np.asarray(Image.open(BytesIO(image)).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(levels / 127.5 - 1).permute(2, 0, 1)[None]


def plain_posterior(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by plain diffusers, times the scaling factor of the tiny model's VAE."""
    with torch.no_grad():
        (posterior,) = vae.encode(pixels, return_dict=False)
    return 0.5 * posterior.mean, 0.5 * posterior.std


def test_pairs_are_the_scaled_posteriors_and_embeddings_of_plain_diffusers(
    tiny_model: Path, labelled_pairs: Path, cache_dir: Path
) -> None:
    training = {"validation_fraction": 0.0}
    spec = tiny_spec(tiny_model, labelled_pairs, method=method(labelled_pairs, ties="keep"), training=training)
    pairs = dpo(loaded(spec, cache_dir)).draws.pairs
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    rows = pq.read_table(labelled_pairs).to_pylist()
    indices = [0, 7, 10]
    batch = pairs.batch(indices)
    for place, index in enumerate(indices):
        row = rows[index]
        sides = {"chosen": (batch.chosen_mean, batch.chosen_std), "rejected": (batch.rejected_mean, batch.rejected_std)}
        for column, (mean, std) in sides.items():
            expected_mean, expected_std = plain_posterior(pipeline.vae, pixels_of(row[column]))
            assert torch.allclose(mean[place], expected_mean[0], atol=1e-5)
            assert torch.allclose(std[place], expected_std[0], atol=1e-5)
        with torch.no_grad():
            embeds, empty = pipeline.encode_prompt(row["prompt"], torch.device("cpu"), 1, True, negative_prompt="")
        assert embeds is not None
        assert empty is not None
        assert torch.allclose(batch.conditioning["prompt_embeds"][place], embeds[0], atol=1e-5)
        assert torch.allclose(pairs.empty_conditioning["prompt_embeds"], empty, atol=1e-5)


def test_the_resolution_asked_for_is_the_one_encoded(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, method=method(tiny_pairs, transform={"resolution": 24}))
    assert dpo(loaded(spec, cache_dir)).draws.pairs.batch([0]).chosen_mean.shape == (1, 4, 12, 12)


@pytest.mark.parametrize("joint", [True, False])
def test_flips_are_drawn_once_a_pair_or_once_an_image(
    joint: bool, tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    transform = {"horizontal_flip": True, "joint": joint}
    spec = tiny_spec(
        tiny_model,
        tiny_pairs,
        method=method(tiny_pairs, transform=transform),
        training={"validation_fraction": 0.0},
    )
    pairs = dpo(loaded(spec, cache_dir)).draws.pairs
    batch = pairs.batch(range(12), [torch.Generator().manual_seed(index) for index in range(12)])
    vae = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True).vae
    rows = pq.read_table(tiny_pairs).to_pylist()

    def is_flipped(mean: Tensor, image: bytes) -> bool:
        pixels = pixels_of(image)
        as_is, flipped = (plain_posterior(vae, one)[0][0] for one in (pixels, pixels.flip(3)))
        assert torch.allclose(mean, as_is, atol=1e-5) != torch.allclose(mean, flipped, atol=1e-5)
        return torch.allclose(mean, flipped, atol=1e-5)

    chosen = [is_flipped(batch.chosen_mean[i], row["chosen"]) for i, row in enumerate(rows)]
    rejected = [is_flipped(batch.rejected_mean[i], row["rejected"]) for i, row in enumerate(rows)]
    assert set(chosen) == set(rejected) == {True, False}
    assert (chosen == rejected) is joint


# --- the model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["tiny", "demo"])
def test_the_noise_schedule_of_a_loaded_model_is_the_published_one(which: str, tiny_model: Path) -> None:
    folder = tiny_model if which == "tiny" else ASSETS / "model"
    family = load_model(
        LocalSource(path=str(folder)),
        device=torch.device("cpu"),
        frozen_dtype=torch.float32,
        denoiser_dtype=torch.float32,
    )
    expected = {
        999: 0.004660098513,
        951: 0.008155004567,
        751: 0.0557190293,
        551: 0.2127825189,
        351: 0.5048185579,
        151: 0.8263992481,
        51: 0.9505243219,
        1: 0.9982960278,
        0: 0.99915,
    }
    assert {t: family.path.abar[t].item() for t in expected} == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(family.path.abar.double(), scaled_linear_abar(), rtol=1e-5)


@pytest.mark.parametrize(("kind", "denoiser"), [("lora", torch.bfloat16), ("full", torch.float32)])
def test_half_precision_is_for_frozen_weights_but_the_vae(
    kind: str, denoiser: torch.dtype, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, training={"precision": "bf16"}, adapter={"type": kind})
    run = loaded(spec, tmp_path)
    assert run.accelerator.mixed_precision == "bf16"
    assert run.actors.denoiser.conv_in.weight.dtype is denoiser
    assert run.family.text_encoder.dtype is torch.bfloat16
    assert run.family.vae.dtype is torch.float32
    assert {parameter.dtype for parameter in run.actors.trainable().values()} == {torch.float32}


# --- data of one's own ---------------------------------------------------------------------------------------------


def test_a_csv_with_images_is_trained_on_as_the_same_parquet_is(
    tiny_model: Path, tmp_path: Path, cache_dir: Path
) -> None:
    parquet = save_pairs(tmp_path / "pairs.parquet")
    folder = tmp_path / "csv"
    folder.mkdir()
    lines = ["caption,left,right,better"]
    for index, row in enumerate(pq.read_table(parquet).to_pylist()):
        for side in ("chosen", "rejected"):
            (folder / f"{index}-{side}.png").write_bytes(row[side])
        lines.append(f"{row['prompt']},{index}-chosen.png,{index}-rejected.png,left")
    (folder / "pairs.csv").write_text("\n".join(lines))
    columns = {"prompt": "caption", "image_0": "left", "image_1": "right", "winner": "better"}
    dataset = {"type": "local", "path": str(folder), "columns": columns}

    as_parquet = loaded(tiny_spec(tiny_model, parquet), cache_dir)
    as_csv = loaded(
        tiny_spec(tiny_model, parquet, method={"type": "diffusion_dpo", "dataset": dataset, "beta": 500.0}), cache_dir
    )
    assert as_csv.dataset_sha256 == as_parquet.dataset_sha256
    assert as_csv.num_validation_examples == as_parquet.num_validation_examples
    assert dpo(as_csv).draws.pairs.prompts == dpo(as_parquet).draws.pairs.prompts
    batches = [dpo(run).draws.pairs.batch([0, 1, 2]) for run in (as_csv, as_parquet)]
    assert torch.equal(batches[0].chosen_mean, batches[1].chosen_mean)
    assert torch.equal(batches[0].rejected_mean, batches[1].rejected_mean)
