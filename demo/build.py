"""Builds the demo model from nothing: `python -m demo.build --out DIR`.

Stages, each skipped when its result is there: two classifiers, the autoencoder, then rounds of
denoiser training until the gates pass. What ships is DIR; what only a rebuild needs lies in
DIR/stages and is removed at the end.
"""

import argparse
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from alignment_core.rewards.attribute_classifier import AttributeClassifier
from demo.assets import GATES_FILE, file_digests
from demo.captions import held_out_captions
from demo.classifiers import ClassifierRecipe, rendered_accuracy, train_classifier
from demo.denoiser import Denoiser, LatentDataset, latent_dataset, loss_on_latents, new_pipeline
from demo.gates import THRESHOLDS, failed_gates, judged_accuracy
from demo.pairs import make_pairs
from demo.sampling import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, load_pipeline
from demo.text import new_tokenizer
from demo.training_round import train_round
from demo.vae import psnr, rendered_batch, train_vae

Log = Callable[[str], None]
Facts = dict[str, Any]


@dataclass(frozen=True)
class BuildConfig:
    """Every number of a build; each part's seed is `seed` plus an offset of its own."""

    seed: int = 0
    classifier_steps: int = 1200
    vae_steps: int = 4000
    num_latents: int = 20_000
    steps_per_round: int = 4000
    max_rounds: int = 3
    samples_per_caption: int = 8
    num_pairs: int = 192
    samples_per_pair: int = 4
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))

    @property
    def classifiers(self) -> tuple[ClassifierRecipe, ClassifierRecipe]:
        """The one that may be a reward, and the one that only judges."""
        return (
            ClassifierRecipe("reward", self.seed + 10, (16, 32, 48, 64), self.classifier_steps),
            ClassifierRecipe("judge", self.seed + 20, (24, 48, 64), self.classifier_steps),
        )


def run_stage(folder: Path, work: Callable[[Path], Facts], log: Log) -> Facts:
    """Runs `work` into `folder` unless it is complete; its facts are kept in `stage.json`.

    The folder appears by a rename, so a build that was stopped midway starts the stage again.
    """
    facts_file = folder / "stage.json"
    if facts_file.is_file():
        log(f"{folder.name}: already built")
        return json.loads(facts_file.read_text())
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    started = time.monotonic()
    facts = work(unfinished)
    facts["seconds"] = round(time.monotonic() - started, 1)
    (unfinished / "stage.json").write_text(json.dumps(facts))
    unfinished.rename(folder)
    log(f"{folder.name}: {facts_file.read_text()}")
    return json.loads(facts_file.read_text())


def build_classifier(recipe: ClassifierRecipe, folder: Path, log: Log) -> Facts:
    """Trains one classifier and measures it on rendered images of another seed."""
    train_classifier(recipe, log).save(folder)
    return {**asdict(recipe), "rendered_accuracy": rendered_accuracy(folder, recipe.seed + 5)}


def build_vae(config: BuildConfig, folder: Path, log: Log) -> Facts:
    """Trains the autoencoder and measures it on rendered images of another seed."""
    vae = train_vae(config.vae_steps, config.seed + 30, log)
    vae.save_pretrained(folder, safe_serialization=True)
    return {
        "seed": config.seed + 30,
        "num_steps": config.vae_steps,
        "psnr_db": psnr(vae, rendered_batch(1000, np.random.default_rng(config.seed + 35))),
        "scaling_factor": vae.config["scaling_factor"],
    }


def build_round(config: BuildConfig, stages: Path, number: int, data: LatentDataset, folder: Path, log: Log) -> Facts:
    """Trains on from the round before (or from nothing) and judges the samples."""
    if number == 1:
        vae = AutoencoderKL.from_pretrained(stages / "vae", local_files_only=True)
        pipeline = new_pipeline(vae, config.seed + 40)
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline = load_pipeline(stages / f"round_{number - 1}")
    seed = config.seed + 100 + number
    parameters = Denoiser(pipeline.unet, pipeline.text_encoder).parameters()
    train_round(parameters, loss_on_latents(pipeline, data), config.steps_per_round, seed, log)
    pipeline.save_pretrained(folder, safe_serialization=True)
    judge = AttributeClassifier.load(stages / "judge")
    accuracy = judged_accuracy(pipeline, judge, config.samples_per_caption, config.seed + 50)
    return {"seed": seed, "num_steps": config.steps_per_round, "accuracy": accuracy}


def build_rounds(config: BuildConfig, stages: Path, log: Log) -> list[Facts]:
    """Rounds until the gates pass. Raises RuntimeError after `max_rounds`."""
    vae = AutoencoderKL.from_pretrained(stages / "vae", local_files_only=True)
    data = latent_dataset(vae, new_tokenizer(), config.num_latents, config.seed + 60)
    rounds: list[Facts] = []
    failures: list[str] = []
    for number in range(1, config.max_rounds + 1):
        rounds.append(
            run_stage(
                stages / f"round_{number}",
                lambda folder, n=number: build_round(config, stages, n, data, folder, log),
                log,
            )
        )
        failures = failed_gates(rounds[-1]["accuracy"], config.thresholds)
        if not failures:
            return rounds
        log(f"round {number}: {'; '.join(failures)}")
    raise RuntimeError(f"gates failed after {config.max_rounds} rounds: {'; '.join(failures)}")


def count_parameters(pipeline: StableDiffusionPipeline) -> dict[str, int]:
    """Parameters of each trained part."""
    parts = {"vae": pipeline.vae, "unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def forget_origin(model: Path) -> None:
    """Drops the folder that diffusers notes in the config of a part it has loaded."""
    for config_file in model.glob("*/config.json"):
        config = json.loads(config_file.read_text())
        config.pop("_name_or_path", None)
        config_file.write_text(json.dumps(config, indent=2) + "\n")


def assemble(config: BuildConfig, stages: Path, num_rounds: int, out: Path) -> None:
    """Copies what ships to `out` and makes the evaluation prompts and the preference pairs."""
    no_facts = shutil.ignore_patterns("stage.json")
    copies = {"model": f"round_{num_rounds}", "classifiers/reward": "reward"}
    for target, stage in {**copies, "classifiers/judge": "judge"}.items():
        shutil.rmtree(out / target, ignore_errors=True)
        shutil.copytree(stages / stage, out / target, ignore=no_facts)
    forget_origin(out / "model")
    prompts = [caption.text for caption in held_out_captions()]
    (out / "prompts.txt").write_text("\n".join(prompts) + "\n")
    pairs = make_pairs(load_pipeline(out / "model"), config.num_pairs, config.samples_per_pair, config.seed)
    pq.write_table(pairs, out / "pairs.parquet")


def gates_report(config: BuildConfig, out: Path, facts: Facts) -> Facts:
    """What `gates.json` holds: the gates, how each part was made, and the digest of each file."""
    accuracy = facts["rounds"][-1]["accuracy"]
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
        **facts,
        "num_parameters": count_parameters(load_pipeline(out / "model")),
        "config": asdict(config),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
        },
        "files": file_digests(out),
    }


def build(config: BuildConfig, out: Path, log: Log) -> Facts:
    """Builds, gates and writes the demo model into `out`; the content of `gates.json`.

    Raises RuntimeError when the gates still fail after `max_rounds`; the stages are then kept.
    """
    stages = out / "stages"
    facts: Facts = {
        recipe.name: run_stage(
            stages / recipe.name,
            lambda folder, r=recipe: build_classifier(r, folder, log),
            log,
        )
        for recipe in config.classifiers
    }
    facts["vae"] = run_stage(stages / "vae", lambda folder: build_vae(config, folder, log), log)
    facts["rounds"] = build_rounds(config, stages, log)
    assemble(config, stages, len(facts["rounds"]), out)
    shutil.rmtree(stages)
    report = gates_report(config, out, facts)
    (out / GATES_FILE).write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(argv: list[str] | None = None) -> None:
    """Builds on one thread, so that the same machine gives the same weights."""
    default = BuildConfig()
    parser = argparse.ArgumentParser(prog="python -m demo.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--steps", type=int, default=default.steps_per_round, help="denoiser steps a round")
    parser.add_argument("--max-rounds", type=int, default=default.max_rounds)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = BuildConfig(seed=arguments.seed, steps_per_round=arguments.steps, max_rounds=arguments.max_rounds)

    def log(line: str) -> None:
        print(line, flush=True)

    report = build(config, arguments.out, log)
    log(f"gates passed: {json.dumps(report['gates'])}")


if __name__ == "__main__":
    main()
