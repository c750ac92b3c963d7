"""The proving half of a run: the policy against the model it started from, as events."""

from collections.abc import Iterator
from pathlib import Path

from alignment_core.evaluation.evaluate import evaluate
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.events import Event, WarningRaised
from alignment_core.run import Run


def evaluate_run(run: Run, workdir: Path) -> Iterator[Event]:
    """Compare the policy with the model it started from, on held-out prompts."""
    spec = run.spec.evaluation
    if not run.evaluation_prompts:
        yield WarningRaised(
            code="no_evaluation", message="there are no held-out prompts: the run ends without a report"
        )
        return
    base, policy = run.samplers()
    yield from evaluate(
        base,
        policy,
        prompts=run.evaluation_prompts,
        max_prompts=spec.max_prompts,
        seeds_per_prompt=spec.seeds_per_prompt,
        rewards=run.rewards,
        prompt_following=run.prompt_following,
        batch_size=spec.batch_size,
        grid_prompts=spec.grid_prompts,
        bootstrap=Bootstrap(spec.bootstrap_resamples, spec.confidence, run.spec.seed),
        provenance=Provenance(
            step=run.spec.training.steps,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            spec_sha256=run.spec.sha256(),
            base_model_sha256=run.base_model_sha256,
        ),
        workdir=workdir,
    )
