"""The report in sentences, for people who read before they look at tables."""

import math

from alignment_core.reports import EvaluationReport, RewardComparison, StartingPoint
from alignment_core.spec.counted import counted

MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
SMALLEST_P = 1e-15


def digits_of(width: float) -> int:
    """Decimals that show two digits of an interval's width."""
    return 3 if width <= 0 else min(6, max(0, 1 - math.floor(math.log10(width))))


def plain(value: float, digits: int = 3) -> str:
    """A number with a true minus sign, and never a negative zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A change: with its sign."""
    text = plain(value, digits)
    return text if text.startswith(MINUS) else f"+{text}"


def percent(share: float, digits: int = 0) -> str:
    return f"{plain(100 * share, digits)}{NBSP}%"


def p_value(p: float | None) -> str:
    """`0.032`, `4e-12`, `< 1e-15`; a dash where there is none."""
    if p is None:
        return "\N{EN DASH}"
    if p < SMALLEST_P:
        return f"<{NBSP}{SMALLEST_P:.0g}"
    return f"{p:.1g}".replace("e-0", "e-") if p < 0.001 else f"{p:.3f}"


def interval_of(line: RewardComparison) -> str:
    """`+0.183 to +0.224`."""
    low, high = line.gain_interval.low, line.gain_interval.high
    digits = digits_of(high - low)
    return f"{signed(low, digits)} to {signed(high, digits)}"


def sides(report: EvaluationReport) -> tuple[str, str]:
    """What the two models are to each other: one came of the other in a job, and in an evaluation they only compete."""
    return ("anchor", "contender") if report.interval_method == "bca" else ("base", "aligned")


def headline(report: EvaluationReport) -> str:
    """The verdict in a few words."""
    if not report.rewards:
        return "Not scored"
    name = report.rewards[0].name.replace("_", " ")
    match report.verdict:
        case "improved":
            return f"Better: {name} rose"
        case "worse":
            return f"Worse: {name} fell"
        case "not_improved":
            return f"No clear change in {name}"
        case "unknown":
            return "One prompt proves nothing"


def verdict(report: EvaluationReport) -> list[str]:
    """Sentences with every figure that the verdict rests on."""
    drawn = f"{counted(report.num_prompts, 'held-out prompt')} \N{MULTIPLICATION SIGN} {counted(report.seeds_per_prompt, 'seed')}"
    if not report.rewards:
        return [f"Both models drew {drawn}, and no reward was asked to score them."]
    return [
        _gain(report, report.rewards[0], drawn),
        *_others(report),
        *_prompt_following(report),
        *_diversity(report),
        *_choice(report),
    ]


def _gain(report: EvaluationReport, line: RewardComparison, drawn: str) -> str:
    digits = digits_of(line.gain_interval.high - line.gain_interval.low)
    p = (
        ""
        if line.p_value is None
        else f", p{NBSP}{'' if line.p_value < SMALLEST_P else f'={NBSP}'}{p_value(line.p_value)}"
    )
    certain = f"{100 * line.gain_interval.confidence:g}{NBSP}% interval {interval_of(line)}{p}"
    won = f"its image scores higher in {percent(line.win_rate)} of the pairs of one prompt and one starting noise"
    if line.num_ties == report.num_prompts * report.seeds_per_prompt:
        won = "every pair of images ties"
    return (
        f"On {drawn}, mean {line.name} went from {plain(line.base_mean, digits)} ({report.base.label}) to "
        f"{plain(line.policy_mean, digits)} ({report.policy.label}), a gain of {signed(line.gain, digits)} ({certain}); {won}."
    )


def _others(report: EvaluationReport) -> list[str]:
    others = [line for line in report.rewards[1:] if not line.trained]
    if not others:
        return []
    changes = [f"{line.name} {_change(line)}" for line in others]
    lead = "Not trained on" if any(line.trained for line in report.rewards) else "Also measured"
    return [f"{lead}: {', '.join(changes)}."]


def _change(line: RewardComparison) -> str:
    digits = digits_of(line.gain_interval.high - line.gain_interval.low)
    if line.gain_interval.low <= 0 <= line.gain_interval.high:
        return f"without clear change ({signed(line.gain, digits)})"
    return f"{'rose' if line.gain > 0 else 'fell'} by {plain(abs(line.gain), digits)}"


def _prompt_following(report: EvaluationReport) -> list[str]:
    line = report.prompt_following
    if line is None:
        return ["No judge of prompt-following was asked, so what the gain cost there is not known."]
    if line.num_ties == report.num_prompts * report.seeds_per_prompt:
        return [f"Prompt-following is the same in every pair, {plain(line.policy_mean)}."]
    return [f"Prompt-following {_change(line)}, from {plain(line.base_mean)} to {plain(line.policy_mean)}."]


def _diversity(report: EvaluationReport) -> list[str]:
    found = report.diversity
    if found is None:
        return []
    if found.base == 0:
        return [f"Images of one prompt differ by {plain(found.policy)}; the base model drew the same one every time."]
    change = found.policy / found.base - 1
    moved = "more" if change > 0 else "less"
    return [
        f"Images of one prompt differ {percent(abs(change))} {moved} than before "
        f"({plain(found.base)} to {plain(found.policy)})."
    ]


def _choice(report: EvaluationReport) -> list[str]:
    """Why this checkpoint is the run's result, where it is not simply the last step."""
    stopped = [] if report.stopped_by is None else [f"The guard {report.stopped_by} ended training."]
    if report.last_step is None or report.selected_by in (None, "last_step"):
        return stopped
    why = (
        "its held-out reward was the highest"
        if report.selected_by == "held_out_reward"
        else "a guard rolled back to it"
    )
    return [*stopped, f"Of {counted(report.last_step, 'step')}, step {report.step} is the result: {why}."]


def subject(report: EvaluationReport) -> list[str]:
    """What the report is of, part by part: job, model, data, steps, date. Empty in reports of before it was told."""
    about = report.subject
    if about is None:
        return []
    return [
        *([f"job {about.job_name or about.job_id}"] if about.job_id else []),
        f"model {about.model}",
        *([_started(about.start)] if about.start else []),
        *([f"data {about.dataset}"] if about.dataset else []),
        counted(about.steps, "step"),
        f"{about.written_at:%-d %B %Y, %H:%M} UTC",
    ]


def _started(start: StartingPoint) -> str:
    """Where training started, and whether the model that this one is compared with has it too."""
    match start.mode, start.initial:
        case "merge", _:
            return f"with the LoRA {start.lora} merged into the initial model"
        case "train", "lora":
            return f"started from the LoRA {start.lora}, which the initial model has too"
        case _:
            return f"started from the LoRA {start.lora}, which the initial model does not have"


def loading(report: EvaluationReport) -> str | None:
    """Python that loads the aligned model with diffusers; None where its kind is not known."""
    match (report.spec or {}).get("adapter", {}).get("type"):
        case "lora":
            then = 'pipeline.load_lora_weights("aligned")  # the folder with pytorch_lora_weights.safetensors'
            return f"{_LOADING}pipeline = StableDiffusionPipeline.from_pretrained({_base(report)})\n{then}"
        case "full":
            return f'{_LOADING}pipeline = StableDiffusionPipeline.from_pretrained("aligned")'
        case _:
            return None


_LOADING = "from diffusers import StableDiffusionPipeline\n\n"


def _base(report: EvaluationReport) -> str:
    match (report.spec or {}).get("model"):
        case {"type": "hub", "repo_id": str(repo_id), "revision": str(revision)}:
            return f'"{repo_id}", revision="{revision}"'
        case {"type": "local", "path": str(path)}:
            return repr(path)
        case _:
            return '"FOLDER_OF_THE_INITIAL_MODEL"'
