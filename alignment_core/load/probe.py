"""From a run to its held-out probe."""

from collections.abc import Generator
from pathlib import Path

from alignment_core.evaluation.contenders import initial_model
from alignment_core.evaluation.draw_and_judge import Judges
from alignment_core.evaluation.probe import HeldOutProbe, plan_probe, probe_prompts
from alignment_core.events import Event, WarningRaised
from alignment_core.training.asked import Asked
from alignment_core.training.run import Run


def load_probe(run: Run) -> Generator[Event, None, HeldOutProbe | None]:
    """The probe that the spec asks for, if it does; warns where it has no prompts of its own."""
    spec = run.spec.evaluation
    if spec.every is None:
        return None
    prompts, num_shared = probe_prompts(run.evaluation_prompts, spec.max_prompts, spec.probe_prompts)
    if num_shared:
        yield WarningRaised(
            code="probe_prompts_in_report",
            message=f"{num_shared} of the probe's {len(prompts)} prompts are in the report too, at other seeds: it flatters "
            "a checkpoint that was chosen by them; give evaluation.prompts more than max_prompts",
        )
    return build_probe(run, prompts)


def load_asked(run: Run, probe: HeldOutProbe | None, workdir: Path) -> Asked:
    """What the run answers while it goes on; where it has no probe, one of its own."""
    spec = run.spec.evaluation
    if probe is None and run.evaluation_prompts and (run.rewards or run.prompt_following):
        probe = build_probe(run, probe_prompts(run.evaluation_prompts, spec.max_prompts, spec.probe_prompts)[0])
    return Asked(workdir, probe)


def build_probe(run: Run, prompts: list[str]) -> HeldOutProbe:
    spec = run.spec.evaluation
    return HeldOutProbe(
        base=initial_model(run.family, run.actors, run.draw).sample,
        policy=lambda prompts, seeds: run.draw(run.actors.denoiser, prompts, seeds),
        plan=plan_probe(
            prompts, seeds_per_prompt=spec.seeds_per_prompt, batch_size=spec.batch_size, seed=run.spec.seed
        ),
        judges=Judges(run.rewards, run.prompt_following),
        confidence=spec.confidence,
        seed=run.spec.seed,
        ranks=run.ranks,
    )
