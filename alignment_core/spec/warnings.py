"""What a spec allows and its author probably did not mean."""

from alignment_core.reports import DatasetReport
from alignment_core.spec.families import FamilyName
from alignment_core.spec.job import JobSpec
from alignment_core.spec.published import far_from_published
from alignment_core.spec.reference import DriftControlledReference, EmaReference, FrozenReference, HardCopyReference
from alignment_core.spec.timesteps import TimestepAware, UniformSampler

SMALL_SHARE = 0.01


def warnings_of(spec: JobSpec, family: FamilyName | None = None) -> list[str]:
    """What is allowed but probably not meant, as sentences for `POST /v1/jobs/validate` and the first event.

    `family` is that of the model, if it is known.
    """
    spec = spec.resolved(family)
    return [
        *spec.method.warnings(spec.examples_per_step),
        *_warnings_of_training(spec),
        *_warnings_of_probes(spec),
        *_warnings_of_plugins(spec),
        *(() if family is None else far_from_published(spec, family)),
    ]


def small_images(report: DatasetReport, resolution: int) -> str | None:
    """What to say of a dataset of which a part is far below the resolution that it is trained at."""
    num_images, num_small = sum(report.shorter_sides.values()), report.num_below(resolution // 2)
    if num_small < SMALL_SHARE * num_images or not num_small:
        return None
    return (
        f"{num_small / num_images:.0%} of the images ({num_small}) have a shorter side below {resolution // 2} pixels, half of "
        f"the {resolution} that they are trained at: they are enlarged, and the model learns their blur"
    )


def _warnings_of_training(spec: JobSpec) -> list[str]:
    found = _warnings_of_learning_rate(spec)
    if spec.training.precision == "fp16" and spec.adapter.type == "full":
        found.append("full fine-tunes in fp16 can overflow; bf16 has the range of fp32")
    if spec.is_online and spec.evaluation.prompts is None:
        found.append("evaluation.prompts is left out: there will be no report, and no proof that the model improved")
    elif not spec.evaluation.rewards:
        found.append("evaluation.rewards is empty: the report will show no proof that the model improved")
    return found


def _warnings_of_learning_rate(spec: JobSpec) -> list[str]:
    recipe, examples, rate = spec.method.recipes[spec.adapter.type], spec.examples_per_step, spec.training.learning_rate
    assert rate is not None, "the spec is resolved"
    if rate < recipe.high_learning_rate(examples):
        return []
    usual = recipe.learning_rate(examples)
    return [
        f"training.learning_rate {rate:g} is {rate / usual:.0f} times {usual:g}, which left out it would be "
        f"({recipe.source_for(examples)}): the model may collapse"
    ]


def _warnings_of_probes(spec: JobSpec) -> list[str]:
    """Guards that are on and have nothing to look at."""
    found, evaluation = [], spec.evaluation
    if evaluation.every is None:
        return found
    if spec.guards.diversity is not None and evaluation.seeds_per_prompt == 1:
        found.append("guards.diversity compares two images of a prompt: set evaluation.seeds_per_prompt to at least 2")
    if spec.guards.reward_hacking is not None and evaluation.prompt_following is None and len(evaluation.rewards) < 2:
        found.append(
            "guards.reward_hacking needs evaluation.prompt_following, or a second reward in evaluation.rewards"
        )
    return found


def _warnings_of_plugins(spec: JobSpec) -> list[str]:
    found = []
    method, reference, timesteps = spec.method, spec.reference, spec.timesteps
    if isinstance(timesteps, TimestepAware) and isinstance(reference, FrozenReference):
        found.append("timestep-aware training helped its authors only together with a moving reference, and hurt alone")
    chooses = isinstance(timesteps, TimestepAware) and not isinstance(timesteps.sampler, UniformSampler)
    if chooses and method.trains_every_step:
        found.append("timesteps.sampler has nothing to choose, as every step is trained: set method.num_trained_steps")
    if isinstance(reference, HardCopyReference) and reference.guard is None:
        found.append("copying the policy without a guard diverges in the published experiments: set reference.guard")
    guard = reference.guard if isinstance(reference, HardCopyReference | EmaReference) else None
    if guard is not None and guard.action == "freeze" and not guard.sticky and guard.test == "reference":
        found.append(
            "reference.guard.sticky is false and test is `reference`: a reference that is skipped does not change, and is skipped "
            "again; set test to `candidate`"
        )
    every = reference.every if isinstance(reference, HardCopyReference | DriftControlledReference) else None
    if every is not None and every * spec.steps_per_turn > spec.training.steps:
        field = f"reference.every ({every}{' iterations' if spec.is_online else ''})"
        found.append(f"{field} is larger than training.steps: the reference never moves")
    if isinstance(reference, EmaReference | DriftControlledReference) and reference.ref_store == "factor_average":
        found.append("reference.ref_store factor_average is not the average of the weights; dense_delta is")
    return found
