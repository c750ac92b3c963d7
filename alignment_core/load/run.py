"""From a spec to the objects of a run: the one place that chooses implementations.

Each choice is a `match` on a type or a class. Below this module nothing sees a spec.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from alignment_core.actors.actors import Actors
from alignment_core.actors.compiled_blocks import keep_compiled_in
from alignment_core.actors.replay import CudaGraphs
from alignment_core.errors import ModelError
from alignment_core.events import Event, ModelLoaded, WarningRaised
from alignment_core.families.family import Family, ToldGuidance
from alignment_core.load.judging import build_judges, build_watch, held_out_prompts
from alignment_core.load.networks import (
    build_actors,
    hold_in_half,
    load_in_precision,
    load_starting_lora,
    on_this_machine,
)
from alignment_core.load.objective import load_objective
from alignment_core.load.online import OnlineMethod, sampling_grid
from alignment_core.load.optimizer import build_optimizer, learning_rate_at
from alignment_core.load.prompts import with_prompts
from alignment_core.load.reference import build_reference
from alignment_core.load.sample import Sample
from alignment_core.load.shelves import images_disk_of, shelves_of
from alignment_core.load.start import StartingLora
from alignment_core.load.timesteps import build_timesteps
from alignment_core.ranks import Ranks, ranks_of
from alignment_core.spec import JobSpec, LocalSource
from alignment_core.spec.places import Sources
from alignment_core.spec.recording import are_recorded
from alignment_core.spec.training import TRAINING_GUIDANCE, Precision
from alignment_core.training.run import Run, precision_of


def load_run(
    spec: JobSpec,
    sources: Sources,
    accelerator: Accelerator,
    cache_dir: Path,
    precision: Precision | None = None,
    sample: Sample | None = None,
    vae_precision: Precision | None = "fp32",
) -> Generator[Event, None, Run]:
    """Load model, rewards and data, yielding what happens; the generator's return value is the run.

    `precision` is what the run was begun in, or what its spec and device say; None lets the model be measured on a GPU. `vae_precision` is
    that of encoded images; None lets half-precision runs measure it.
    With a `sample` it is a run on some rows of its data, to be tried and thrown away.
    """
    ranks = ranks_of(accelerator.process_index, accelerator.num_processes)
    with accelerator.main_process_first():  # the others find an unpacked file in the cache
        here = on_this_machine(spec, sources, cache_dir)
    here = yield from with_prompts(here)
    accelerator, family = yield from load_in_precision(here, accelerator, precision, ranks, cache_dir)
    start = load_starting_lora(spec, here, family)
    actors = _build_actors(spec, family, accelerator, start, ranks)
    of_folder = family.fingerprint()
    fingerprint = of_folder if start is None else start.initial_model_sha256(of_folder)
    _refuse_misread_options(spec, family)
    yield from _model_loaded(here, family, actors, fingerprint)
    judges = build_judges(here.evaluation, accelerator.device, cache_dir)
    shelves = shelves_of(sources, ranks)
    encoded_in = "fp32" if precision_of(accelerator) == "fp32" else vae_precision
    disk = images_disk_of(sources, ranks)
    objective = yield from load_objective(
        here, family, fingerprint, accelerator, ranks, cache_dir, shelves, sample, encoded_in, disk
    )
    prompts = yield from held_out_prompts(here.evaluation, objective, family)
    judges.rehearse(spec.evaluation, prompts)
    online = objective.method if isinstance(objective.method, OnlineMethod) else None
    setup = None if online is None else online.setup
    reference = build_reference(spec, actors, objective.winners, setup, accelerator)
    _release_unused(spec, family)
    optimizer = build_optimizer(spec, actors, accelerator)
    hold_in_half(spec, here, family, actors, precision_of(accelerator), cache_dir)
    _settle_passes(spec, actors, accelerator, ranks, cache_dir)
    return Run(
        spec=spec,
        accelerator=accelerator,
        ranks=ranks,
        family=family,
        base_model_sha256=fingerprint,
        folder_sha256=of_folder,
        dataset_sha256=objective.dataset_sha256,
        vae_precision=objective.vae_precision,
        actors=actors,
        method=objective.method,
        validation=objective.validation,
        num_validation_examples=objective.num_validation_examples,
        reference=reference,
        reference_errors=objective.reference_errors,
        timesteps=build_timesteps(spec.timesteps, family.path, online),
        optimizer=optimizer,
        learning_rate_at=learning_rate_at(spec.training),
        evaluation_prompts=prompts,
        rewards=judges.rewards,
        prompt_following=judges.prompt_following,
        watch=build_watch(spec),
        label=sources.label,
        start=None if start is None else start.described(),
        shelves=shelves,
    )


def _build_actors(
    spec: JobSpec, family: Family, accelerator: Accelerator, start: StartingLora | None, ranks: Ranks
) -> Actors:
    actors = build_actors(spec, family, accelerator, start)
    if spec.resources.strategy == "fsdp2":  # before there is a reference or an optimiser, which then lie in shares too
        actors.shard(init_device_mesh(accelerator.device.type, (ranks.count,)))
    return actors


def _release_unused(spec: JobSpec, family: Family) -> None:
    family.release_encoders()  # what the data needs of them is in the cache
    if not spec.steps_use_vae:
        family.release_vae()


def _settle_passes(spec: JobSpec, actors: Actors, accelerator: Accelerator, ranks: Ranks, cache_dir: Path) -> None:
    """How gradients are averaged, where compiled blocks are kept, and whether kernels are recorded."""
    is_recorded = are_recorded(spec, on_a_card=accelerator.device.type == "cuda")
    if ranks.count > 1 and spec.resources.strategy == "ddp":
        # What is recorded, or may run out of memory by itself, cannot send its gradients from within the backward.
        if is_recorded or spec.training.micro_batch == "auto":
            actors.average_apart()
        else:
            actors.trained = _with_averaged_gradients(actors.denoiser, accelerator.device)
    if spec.training.compile != "off":
        keep_compiled_in(cache_dir / "compiled")
    if is_recorded:
        actors.record_with(CudaGraphs())


def _with_averaged_gradients(network: torch.nn.Module, device: torch.device) -> DistributedDataParallel:
    """Not by accelerate, which gives the network itself an autocast that nothing below can leave, a measurement in float32 neither."""
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=devices, gradient_as_bucket_view=True
    )  # else each is there twice


def _model_loaded(here: JobSpec, family: Family, actors: Actors, fingerprint: str) -> Iterator[Event]:
    yield ModelLoaded(
        base_model_sha256=fingerprint,
        num_parameters=actors.num_base_parameters(),
        num_trainable_parameters=sum(parameter.numel() for parameter in actors.trainable().values()),
        resolution=family.resolution,
        prediction_type=family.path.prediction_type,
    )
    if isinstance(here.model, LocalSource) and (variant := family.folder.variant) is not None:
        message = f"the model's folder has weights in the variant {variant} alone; they are what is trained on"
        yield WarningRaised(code="weights_variant", message=message)


def _refuse_misread_options(spec: JobSpec, family: Family) -> None:
    method = spec.method
    if method.needs_v_prediction and family.path.prediction_type != "v_prediction":
        raise ModelError(
            "v_rescale_unsupported",
            f"method.v_rescale is for v-prediction models, and this one predicts {family.path.prediction_type}",
        )
    if spec.training.embedded_guidance != TRAINING_GUIDANCE and not isinstance(family, ToldGuidance):
        raise ModelError(
            "embedded_guidance_unsupported",
            "training.embedded_guidance is for models that are told their guidance, and this one is guided by a second forward",
        )
    if method.needs_flow and family.path.prediction_type != "flow":
        raise ModelError(
            "flow_beta_unsupported",
            f"method.flow_beta is for flow matching, and this model predicts {family.path.prediction_type}",
        )
    if spec.evaluation.rewards:
        sampling_grid(family, spec.evaluation.num_inference_steps, 0.0, "evaluation.num_inference_steps")
