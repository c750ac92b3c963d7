"""The proving half of a run: the policy against the model it started from, as events."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.evaluation.contenders import Contender, Contenders, compared_model, initial_model, policy_as_it_is
from alignment_core.evaluation.draw_and_judge import Judges
from alignment_core.evaluation.evaluate import (
    EvaluationProtocol,
    MeasureDrift,
    ModelPair,
    ReportFolder,
    evaluate,
    protocol_of,
)
from alignment_core.evaluation.policy_drift import DRAWS_PER_BIN, Conditioned, eps_distance
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.evaluation.weight_change import relative_change
from alignment_core.events import Event, ResultSelected, WarningRaised
from alignment_core.reports import Drift, RunWarning, Subject
from alignment_core.shapes import Images
from alignment_core.spec import JobSpec, reward_name
from alignment_core.spec.controls import is_trained
from alignment_core.spec.reference import MovingReferenceSpec
from alignment_core.spec.sources import label_of
from alignment_core.spec.warnings import warnings_of
from alignment_core.training.run import Run


@dataclass(frozen=True)
class Training:
    """What made the two models: the specs, the policy's last; the policy's data; why its checkpoint is a run's result."""

    specs: Sequence[JobSpec]
    dataset_sha256: str | None
    result: ResultSelected | None = None


def evaluate_run(run: Run, workdir: Path, result: ResultSelected) -> Generator[Event, None, None]:
    """Compare the policy, which has the weights of `result`, with the model it started from, on held-out prompts."""
    if not run.evaluation_prompts:
        yield WarningRaised(
            code="no_evaluation", message="there are no held-out prompts: the run ends without a report"
        )
        return
    manifest = checkpoints.read_manifest(workdir / result.path)
    base = initial_model(run.family, run.actors, run.draw)
    policy = policy_as_it_is(run.family, run.actors, run.draw, compared_model(manifest, f"step {manifest.step}"))
    place = ReportFolder(workdir / "evaluation" / f"step-{manifest.step:08d}", workdir)
    yield from compare_contenders(
        run, Contenders(base, policy), Training((run.spec,), run.dataset_sha256, result), place
    )


def compare_contenders(
    run: Run, contenders: Contenders, training: Training, place: ReportFolder
) -> Generator[Event, None, None]:
    """Compare two models as the run's spec wants it, and write the report; the curves are those of the run's history."""
    models = ModelPair(contenders.base.sample, contenders.policy.sample, _drift_between(run, contenders))
    return evaluate(models, _protocol(run), _provenance(run, contenders, training), place, run.ranks)


def _protocol(run: Run) -> EvaluationProtocol:
    spec = run.spec.evaluation
    return protocol_of(
        run.evaluation_prompts,
        Judges(run.rewards, run.prompt_following),
        Bootstrap(spec.bootstrap_resamples, spec.confidence, run.spec.seed),
        max_prompts=spec.max_prompts,
        seeds_per_prompt=spec.seeds_per_prompt,
        batch_size=spec.batch_size,
        grid_prompts=spec.grid_prompts,
    )


def _provenance(run: Run, contenders: Contenders, training: Training) -> Provenance:
    spec, drawn = training.specs[-1], run.spec.evaluation
    policy = contenders.policy
    reference = spec.reference
    return Provenance(
        step=policy.model.step or 0,
        base=contenders.base.model,
        policy=policy.model,
        num_inference_steps=drawn.num_inference_steps,
        guidance_scale=drawn.guidance_scale,
        spec_sha256=spec.sha256(),
        base_model_sha256=run.base_model_sha256,
        dataset_sha256=training.dataset_sha256,
        spec=spec.model_dump(mode="json"),
        seed=spec.seed,
        method=spec.method.type,
        reference=reference.type,
        reg_mode=reference.reg_mode if isinstance(reference, MovingReferenceSpec) else None,
        device=run.accelerator.device.type,
        precision=run.precision,
        logit_error=run.history.logit_error,
        throughput=run.meter.last,
        trained=_trained_names(run.spec, training.specs),
        curves=run.history.curves(),
        tables=[run.history.tables[split] for split in sorted(run.history.tables)],
        result=training.result,
        subject=_subject(run, policy, spec),
        warnings=[*(RunWarning(code="spec", message=found) for found in warnings_of(spec)), *run.history.warnings],
    )


def _subject(run: Run, policy: Contender, trained_by: JobSpec) -> Subject:
    method, label = trained_by.method, run.label
    dataset = None if method.data is None else label.dataset_name or label_of(method.data)
    return Subject(
        job_id=label.job_id,
        job_name=label.job_name,
        model=label_of(trained_by.model),
        dataset=dataset,
        start=run.start,
        steps=policy.model.step or 0,
        written_at=datetime.now(UTC),
    )


def _trained_names(spec: JobSpec, trained_by: Sequence[JobSpec]) -> frozenset[str]:
    """The evaluation's rewards that either side was trained on. Offline methods learn from preferences, not from rewards."""
    return frozenset(
        reward_name(reward)
        for reward in spec.evaluation.rewards
        if any(is_trained(reward, one.method) for one in trained_by)
    )


def _drift_between(run: Run, contenders: Contenders) -> MeasureDrift:
    base, policy = contenders.base, contenders.policy

    def measure(images: Images, prompts: Sequence[str]) -> Drift:
        size = run.spec.evaluation.batch_size
        latents, _ = run.family.encode_images(2 * images - 1)
        distance, bins = eps_distance(
            Conditioned(base.predict, base.conditioning(prompts)),
            Conditioned(policy.predict, policy.conditioning(prompts)),
            latents=latents,
            path=run.family.path,
            seed=run.spec.seed,
            batch_size=size,
        )
        norms = {**base.initial_norms(), **policy.initial_norms()}
        return Drift(
            eps_dist=distance,
            by_timestep=bins,
            num_draws=DRAWS_PER_BIN * len(bins),
            relative_weight_change=relative_change(base.deltas(), policy.deltas(), norms),
        )

    return measure
