"""Trains the two models from nothing: `python -m demo.families.build --out DIR`.

Each has the demo model's autoencoder and is trained in rounds until its gates pass. The result is
DIR/sdxl and DIR/sd3; the rounds lie in DIR/stages and are removed at the end. A build that was
stopped goes on after its last complete round.
"""

import argparse
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from alignment_core.rewards.attribute_classifier import AttributeClassifier
from demo.assets import ASSETS, GATES_FILE
from demo.build import Facts, Log, forget_origin, run_stage
from demo.captions import held_out_captions
from demo.denoiser import LatentDataset, latent_dataset
from demo.families import sd3, sdxl
from demo.families.assets import FamilyPipeline, family_digests, load_sd3, load_sdxl
from demo.gates import failed_gates, judged_accuracy
from demo.sampling import GUIDANCE_SCALE, NUM_INFERENCE_STEPS
from demo.text import new_tokenizer
from demo.training_round import train_round

THRESHOLDS: Mapping[str, float] = {"color": 0.98, "shape": 0.80, "position": 0.95}
NO_TRAINING = ("stage.json",)


@dataclass(frozen=True)
class FamilyBuild:
    """What a family's model is made of; `trained` names the parts that a round trains."""

    name: str
    new_pipeline: Callable[[AutoencoderKL, int], Any]
    load: Callable[[Path], Any]
    loss_on_latents: Callable[[Any, LatentDataset], Callable[[torch.Generator], torch.Tensor]]
    trained: tuple[str, ...]
    shifted: bool  # whether the latents are centred, as the autoencoders of flow-matching models have them


SDXL = FamilyBuild(
    "sdxl",
    sdxl.new_pipeline,
    load_sdxl,
    sdxl.loss_on_latents,
    ("unet", "text_encoder", "text_encoder_2"),
    shifted=False,
)
SD3 = FamilyBuild(
    "sd3",
    sd3.new_pipeline,
    load_sd3,
    sd3.loss_on_latents,
    ("transformer", "text_encoder", "text_encoder_2"),
    shifted=True,
)


@dataclass(frozen=True)
class FamiliesConfig:
    """Every number of a build; each part's seed is `seed` plus an offset of its own."""

    seed: int = 0
    num_latents: int = 20_000
    steps_per_round: int = 6000
    max_rounds: int = 3
    samples_per_caption: int = 8
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))


def demo_vae() -> AutoencoderKL:
    """The demo model's trained autoencoder."""
    return AutoencoderKL.from_pretrained(ASSETS / "model" / "vae", local_files_only=True, use_safetensors=True)


def shift_of(data: LatentDataset, scaling_factor: float) -> float:
    """The mean of the latents before they were scaled: what SD 3 calls the `shift_factor`."""
    return float(data.latents.mean()) / scaling_factor


def centred(data: LatentDataset) -> LatentDataset:
    """The same latents, less their mean."""
    return LatentDataset(data.latents - data.latents.mean(), data.token_ids, data.empty_ids)


def build_round(
    family: FamilyBuild, config: FamiliesConfig, stages: Path, number: int, data: LatentDataset, folder: Path, log: Log
) -> Facts:
    """Trains on from the round before (or from nothing) and judges the samples."""
    if number == 1:
        vae = demo_vae()
        if family.shifted:
            vae.register_to_config(shift_factor=shift_of(data, vae.config["scaling_factor"]))
        pipeline = family.new_pipeline(vae, config.seed + 40)
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline = family.load(stages / f"{family.name}_{number - 1}")
    parameters = [one for part in family.trained for one in getattr(pipeline, part).parameters()]
    loss = family.loss_on_latents(pipeline, centred(data) if family.shifted else data)
    seed = config.seed + 100 + number
    train_round(parameters, loss, config.steps_per_round, seed, log)
    pipeline.save_pretrained(folder, safe_serialization=True)
    judge = AttributeClassifier.load(ASSETS / "classifiers" / "judge")
    accuracy = judged_accuracy(family.load(folder), judge, config.samples_per_caption, config.seed + 50)
    return {"seed": seed, "num_steps": config.steps_per_round, "accuracy": accuracy}


def build_rounds(
    family: FamilyBuild, config: FamiliesConfig, stages: Path, data: LatentDataset, log: Log
) -> list[Facts]:
    """Rounds until the gates pass. Raises RuntimeError after `max_rounds`."""
    rounds: list[Facts] = []
    failures: list[str] = []
    for number in range(1, config.max_rounds + 1):
        rounds.append(
            run_stage(
                stages / f"{family.name}_{number}",
                lambda folder, n=number: build_round(family, config, stages, n, data, folder, log),
                log,
            )
        )
        failures = failed_gates(rounds[-1]["accuracy"], config.thresholds)
        if not failures:
            return rounds
        log(f"{family.name} round {number}: {'; '.join(failures)}")
    raise RuntimeError(f"{family.name}: gates failed after {config.max_rounds} rounds: {'; '.join(failures)}")


def count_parameters(pipeline: FamilyPipeline, parts: tuple[str, ...]) -> dict[str, int]:
    """Parameters of each part."""
    return {part: sum(one.numel() for one in getattr(pipeline, part).parameters()) for part in ("vae", *parts)}


def gates_report(family: FamilyBuild, config: FamiliesConfig, model: Path, rounds: list[Facts]) -> Facts:
    """What `gates.json` holds: the gates, how the model was made, and the digest of each file."""
    accuracy = rounds[-1]["accuracy"]
    return {
        "gates": {
            attribute: {"accuracy": accuracy[attribute], "threshold": threshold}
            for attribute, threshold in config.thresholds.items()
        },
        "samples": {
            "num_images": config.samples_per_caption * len(held_out_captions()),
            "captions": "held out",
            "seed": config.seed + 50,
            "num_inference_steps": NUM_INFERENCE_STEPS,
            "guidance_scale": GUIDANCE_SCALE,
        },
        "rounds": rounds,
        "num_parameters": count_parameters(family.load(model), family.trained),
        "config": asdict(config),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
        },
        "files": family_digests(model),
    }


def build(family: FamilyBuild, config: FamiliesConfig, out: Path, log: Log) -> Facts:
    """Trains, gates and writes one model into `out`; the content of its `gates.json`.

    Raises RuntimeError when the gates still fail after `max_rounds`; the rounds are then kept.
    """
    stages, model = out / "stages", out / family.name
    data = latent_dataset(demo_vae(), new_tokenizer(), config.num_latents, config.seed + 60)
    rounds = build_rounds(family, config, stages, data, log)
    shutil.rmtree(model, ignore_errors=True)
    last = stages / f"{family.name}_{len(rounds)}"
    shutil.copytree(last, model, ignore=shutil.ignore_patterns(*NO_TRAINING))
    forget_origin(model)
    report = gates_report(family, config, model, rounds)
    (model / GATES_FILE).write_text(json.dumps(report, indent=2) + "\n")
    for number in range(1, len(rounds) + 1):
        shutil.rmtree(stages / f"{family.name}_{number}")
    return report


def main(argv: list[str] | None = None) -> None:
    """Builds on one thread, so that the same machine gives the same weights."""
    default = FamiliesConfig()
    families = {family.name: family for family in (SDXL, SD3)}
    parser = argparse.ArgumentParser(prog="python -m demo.families.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--only", choices=families, help="one family rather than both")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--steps", type=int, default=default.steps_per_round, help="training steps a round")
    parser.add_argument("--max-rounds", type=int, default=default.max_rounds)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = FamiliesConfig(seed=arguments.seed, steps_per_round=arguments.steps, max_rounds=arguments.max_rounds)

    def log(line: str) -> None:
        print(line, flush=True)

    for name in [arguments.only] if arguments.only else families:
        report = build(families[name], config, arguments.out, log)
        log(f"{name}: gates passed: {json.dumps(report['gates'])}")


if __name__ == "__main__":
    main()
