"""The proving half of a run: the policy against the model it started from, as events."""

from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.contenders import Contender, initial_model, policy_as_it_is, told_of
from alignment_core.evaluation.evaluate import MeasureDrift, evaluate
from alignment_core.evaluation.policy_drift import DRAWS_PER_BIN, eps_distance
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.evaluation.weight_change import relative_change
from alignment_core.events import Event, ResultSelected, WarningRaised
from alignment_core.protocols import Images
from alignment_core.reports import Drift, RunWarning, Subject
from alignment_core.run import Run
from alignment_core.spec import JobSpec, OnlineMethodSpec, reward_name
from alignment_core.spec_controls import is_trained
from alignment_core.spec_reference import MovingReferenceSpec
from alignment_core.spec_sources import label_of
from alignment_core.spec_warnings import warnings_of


def evaluate_run(run: Run, workdir: Path, result: ResultSelected) -> Generator[Event, None, None]:
    """Compare the policy, which has the weights of `result`, with the model it started from, on held-out prompts."""
    if not run.evaluation_prompts:
        yield WarningRaised(
            code="no_evaluation", message="there are no held-out prompts: the run ends without a report"
        )
        return
    manifest = checkpoints.read_manifest(workdir / result.path)
    base = initial_model(run.actors, run.draw)
    policy = policy_as_it_is(run.actors, run.draw, told_of(manifest, f"step {manifest.step}"))
    yield from compare_contenders(
        run,
        base,
        policy,
        trained_by=(run.spec,),
        dataset_sha256=run.dataset_sha256,
        workdir=workdir,
        folder=workdir / "evaluation" / f"step-{manifest.step:08d}",
        result=result,
    )


def compare_contenders(
    run: Run,
    base: Contender,
    policy: Contender,
    *,
    trained_by: Sequence[JobSpec],
    dataset_sha256: str | None,
    workdir: Path,
    folder: Path,
    result: ResultSelected | None = None,
) -> Generator[Event, None, None]:
    """Compare two models as the run's spec wants it, and write the report to `folder`, which lies in `workdir`.

    `trained_by` are the specs that made them, the policy's last; `dataset_sha256` is of the policy's data. The curves are
    those of the run's history.
    """
    spec = run.spec.evaluation
    return evaluate(
        base.sample,
        policy.sample,
        prompts=run.evaluation_prompts,
        max_prompts=spec.max_prompts,
        seeds_per_prompt=spec.seeds_per_prompt,
        rewards=run.rewards,
        prompt_following=run.prompt_following,
        batch_size=spec.batch_size,
        grid_prompts=spec.grid_prompts,
        bootstrap=Bootstrap(spec.bootstrap_resamples, spec.confidence, run.spec.seed),
        provenance=_provenance(run, base, policy, trained_by, dataset_sha256, result),
        workdir=workdir,
        folder=folder,
        measure_drift=_drift_between(run, base, policy),
    )


def _provenance(
    run: Run,
    base: Contender,
    policy: Contender,
    trained_by: Sequence[JobSpec],
    dataset_sha256: str | None,
    result: ResultSelected | None,
) -> Provenance:
    spec, drawn = trained_by[-1], run.spec.evaluation
    reference = spec.reference
    return Provenance(
        step=policy.told.step or 0,
        base=base.told,
        policy=policy.told,
        num_inference_steps=drawn.num_inference_steps,
        guidance_scale=drawn.guidance_scale,
        spec_sha256=spec.sha256(),
        base_model_sha256=run.base_model_sha256,
        dataset_sha256=dataset_sha256,
        spec=spec.model_dump(mode="json"),
        seed=spec.seed,
        method=spec.method.type,
        reference=reference.type,
        reg_mode=reference.reg_mode if isinstance(reference, MovingReferenceSpec) else None,
        device=run.accelerator.device.type,
        precision=run.spec.training.precision,
        trained=_trained_names(run.spec, trained_by),
        curves=run.history.curves(),
        tables=[run.history.tables[split] for split in sorted(run.history.tables)],
        result=result,
        subject=_subject(run, policy, spec),
        warnings=[*(RunWarning(code="spec", message=found) for found in warnings_of(spec)), *run.history.warnings],
    )


def _subject(run: Run, policy: Contender, trained_by: JobSpec) -> Subject:
    method, label = trained_by.method, run.label
    dataset = None if isinstance(method, OnlineMethodSpec) else label.dataset_name or label_of(method.dataset)
    return Subject(
        job_id=label.job_id,
        job_name=label.job_name,
        model=label_of(trained_by.model),
        dataset=dataset,
        steps=policy.told.step or 0,
        written_at=datetime.now(UTC),
    )


def _trained_names(spec: JobSpec, trained_by: Sequence[JobSpec]) -> frozenset[str]:
    """The evaluation's rewards that either side was trained on. Offline methods learn from preferences, not from rewards."""
    methods = [one.method for one in trained_by if isinstance(one.method, OnlineMethodSpec)]
    return frozenset(
        reward_name(reward)
        for reward in spec.evaluation.rewards
        if any(is_trained(reward, method) for method in methods)
    )


def _drift_between(run: Run, base: Contender, policy: Contender) -> MeasureDrift:
    def measure(images: Images, prompts: Sequence[str]) -> Drift:
        size = run.spec.evaluation.batch_size
        latents, _ = run.family.encode_images(2 * images - 1)
        distance, bins = eps_distance(
            base.predict,
            policy.predict,
            latents=latents,
            conditioning=run.family.encode_prompts(prompts),
            abar=run.family.abar,
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
