"""The proving half of a run: the policy against the model it started from, as events."""

from collections.abc import Generator, Sequence
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.contenders import Contender, initial_model, policy_as_it_is, told_of
from alignment_core.evaluation.evaluate import MeasureDrift, evaluate
from alignment_core.evaluation.policy_drift import DRAWS_PER_BIN, eps_distance
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.evaluation.weight_change import relative_change
from alignment_core.events import Event, WarningRaised
from alignment_core.protocols import Images
from alignment_core.reports import Drift, RunWarning
from alignment_core.run import Run
from alignment_core.spec import DiffusionDPOSpec, JobSpec, reward_name
from alignment_core.spec_controls import is_trained
from alignment_core.spec_reference import MovingReferenceSpec
from alignment_core.spec_warnings import warnings_of


def evaluate_run(run: Run, workdir: Path) -> Generator[Event, None, None]:
    """Compare the policy with the model it started from, on held-out prompts; its checkpoint must have been saved."""
    if not run.evaluation_prompts:
        yield WarningRaised(
            code="no_evaluation", message="there are no held-out prompts: the run ends without a report"
        )
        return
    newest = checkpoints.latest(workdir / "checkpoints")
    assert newest is not None, "the last step is always saved"
    told = told_of(checkpoints.read_manifest(newest))
    base, policy = initial_model(run.actors, run.draw), policy_as_it_is(run.actors, run.draw, told)
    step = run.spec.training.steps
    yield from compare_contenders(run, base, policy, step, workdir, workdir / "evaluation" / f"step-{step:08d}")


def compare_contenders(
    run: Run, base: Contender, policy: Contender, step: int, workdir: Path, folder: Path
) -> Generator[Event, None, None]:
    """Compare two models as the run's spec wants it, and write the report to `folder`, which lies in `workdir`."""
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
        provenance=_provenance(run, base, policy, step),
        workdir=workdir,
        folder=folder,
        measure_drift=_drift_between(run, base, policy),
    )


def _provenance(run: Run, base: Contender, policy: Contender, step: int) -> Provenance:
    spec = run.spec
    reference = spec.reference
    return Provenance(
        step=step,
        base=base.told,
        policy=policy.told,
        num_inference_steps=spec.evaluation.num_inference_steps,
        guidance_scale=spec.evaluation.guidance_scale,
        spec_sha256=spec.sha256(),
        base_model_sha256=run.base_model_sha256,
        dataset_sha256=run.dataset_sha256,
        spec=spec.model_dump(mode="json"),
        seed=spec.seed,
        method=spec.method.type,
        reference=reference.type,
        reg_mode=reference.reg_mode if isinstance(reference, MovingReferenceSpec) else None,
        device=run.accelerator.device.type,
        precision=spec.training.precision,
        trained=_trained_names(spec),
        curves=run.history.curves(),
        tables=[run.history.tables[split] for split in sorted(run.history.tables)],
        warnings=[*(RunWarning(code="spec", message=found) for found in warnings_of(spec)), *run.history.warnings],
    )


def _trained_names(spec: JobSpec) -> frozenset[str]:
    """Offline methods learn from preferences, and no reward of a report is their own."""
    method = spec.method
    if isinstance(method, DiffusionDPOSpec):
        return frozenset()
    return frozenset(reward_name(reward) for reward in spec.evaluation.rewards if is_trained(reward, method))


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
