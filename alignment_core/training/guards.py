"""The rules of the guards: from what a run measured to a sentence with its numbers, or None while all is well.

Pure functions: steps are the metrics of the last optimiser steps, probes the figures of the last probes, oldest first.
`docs/guards.md` has the rules and where the thresholds come from.
"""

from collections.abc import Mapping, Sequence

from alignment_core.evaluation.probe_figures import Line, ProbeFigures

Steps = Sequence[Mapping[str, float]]

MEASURED_DRIFTS = ("ref_drift_mse_gap", "ref_drift_eps_dist")  # on fixed winners, when an update is due
BATCH_DRIFT = "ref_drift_batch_eps_dist"  # on the pairs of the step, at every step


def mean_of(steps: Steps, name: str, window: int) -> float | None:
    """The mean of a metric over its last `window` values; None while there are fewer."""
    values = [step[name] for step in steps if name in step][-window:]
    return sum(values) / window if len(values) == window else None


def margin_saturation(
    steps: Steps, *, max_loss: float, min_accuracy: float, max_clamped: float, window: int
) -> str | None:
    """Loss near 0 and accuracy above their thresholds, or D3PO's ratios clamped: no pair has a gradient left."""
    loss, accuracy = mean_of(steps, "loss", window), mean_of(steps, "implicit_accuracy", window)
    if loss is None or accuracy is None:
        return None
    if 0 <= loss < max_loss and accuracy >= min_accuracy:  # below 0 is the robust loss, which still has a slope
        return (
            f"over {window} steps the loss is {loss:.3g} (below {max_loss:g}) and the implicit accuracy {accuracy:.4f}: "
            "nothing is left to learn, or the reference moved"
        )
    clamped = mean_of(steps, "clamped", window)
    if clamped is not None and clamped > max_clamped:
        return f"over {window} steps {clamped:.1%} of the ratios are clamped (above {max_clamped:.1%}) and have no gradient"
    return None


def errors_rising(steps: Steps, *, max_ratio: float, window: int) -> str | None:
    """Both errors above the initial model's by a factor; the gains against it come with the metrics of offline methods."""
    chosen, rejected = _error_ratio(steps, "chosen", window), _error_ratio(steps, "rejected", window)
    if chosen is None or rejected is None or min(chosen, rejected) <= max_ratio:
        return None
    return (
        f"over {window} steps the error on chosen images is {chosen:.3g} times and on rejected images {rejected:.3g} times "
        f"the initial model's (both above {max_ratio:g})"
    )


def _error_ratio(steps: Steps, side: str, window: int) -> float | None:
    error = mean_of(steps, f"{side}_error", window)
    gain = mean_of(steps, f"{side}_gain_vs_init", window)  # said only where the reference moves
    gain = mean_of(steps, f"{side}_gain", window) if gain is None else gain
    if error is None or gain is None or error + gain <= 0:
        return None
    return error / (error + gain)


def reference_drift(steps: Steps, *, max_drift: float, max_mean_shift: float, window: int) -> str | None:
    """The reference's drift from the initial model, or the policy's from the reference, above its threshold.

    What is measured on winners that never change is judged at once; what changes with the batch, over the window.
    """
    newest = steps[-1] if steps else {}
    for name in MEASURED_DRIFTS:
        if newest.get(name, 0.0) > max_drift:
            return f"the reference's drift from the initial model, {name}, is {newest[name]:.3g} (above {max_drift:g})"
    drift = mean_of(steps, BATCH_DRIFT, window)
    if drift is not None and drift > max_drift:
        return f"over {window} steps the reference's drift from the initial model, {BATCH_DRIFT}, is {drift:.3g} (above {max_drift:g})"
    return _policy_drift(steps, max_drift, max_mean_shift, window)


def _policy_drift(steps: Steps, max_drift: float, max_mean_shift: float, window: int) -> str | None:
    """Of online methods: TailorPO and D3PO tell `mean_shift`; DPOK's `kl` is a squared distance of predictions."""
    shift, kl = mean_of(steps, "mean_shift", window), mean_of(steps, "kl", window)
    if shift is not None and shift > max_mean_shift:
        return f"over {window} steps the policy's steps lie {shift:.3g} standard deviations from the reference's (above {max_mean_shift:g})"
    if shift is None and kl is not None and kl > max_drift:
        return f"over {window} steps the policy's squared distance from the reference is {kl:.3g} (above {max_drift:g})"
    return None


def diversity(probes: Sequence[ProbeFigures], *, min_ratio: float, window: int) -> str | None:
    """The images of one prompt are less far apart than those of the initial model, probe after probe."""
    last = probes[-window:]
    ratios = [probe.diversity_ratio for probe in last]
    if len(last) < window or any(ratio is None or ratio >= min_ratio for ratio in ratios):
        return None
    newest = last[-1]
    return (
        f"diversity fell to {newest.diversity:.3f} from the initial model's {newest.base_diversity:.3f}, "
        f"{newest.diversity_ratio:.1%} of it (below {min_ratio:.1%})"
    )


def reward_hacking(
    probes: Sequence[ProbeFigures], *, risen: str, trained: frozenset[str], max_drop: float, window: int
) -> str | None:
    """The reward `risen` rises, and what it should stand for falls, probe after probe; none of `trained` is a witness."""
    last = probes[-window:]
    sentences = [_hacked(probe, risen, trained, max_drop) for probe in last]
    return None if len(last) < window or any(sentence is None for sentence in sentences) else sentences[-1]


def _hacked(probe: ProbeFigures, name: str, trained: frozenset[str], max_drop: float) -> str | None:
    risen, judge = probe.rewards[name], probe.prompt_following
    if risen.low <= 0:
        return None
    others = {other: line for other, line in probe.rewards.items() if other != name and other not in trained}
    if judge is not None and _fell(judge, max_drop):
        fallen = {"prompt_following": judge}
    elif others and all(_fell(line, max_drop) for line in others.values()):
        fallen = others
    else:
        return None
    falls = ", ".join(f"{other} fell by {-line.gain:.3f} ({_in_spreads(line)})" for other, line in fallen.items())
    return f"held-out {name} rose by {risen.gain:.3f} while {falls}; {max_drop:g} standard deviations are allowed"


def _fell(line: Line, max_drop: float) -> bool:
    return line.high < 0 and -line.gain > max_drop * line.spread


def _in_spreads(line: Line) -> str:
    if line.spread == 0:
        return "and all images score the same"
    return f"{-line.gain / line.spread:.2f} standard deviations"


def reference_held(metrics: Mapping[str, float]) -> str | None:
    """What the reference's own guard did, where it did not let the reference follow the policy."""
    drifts = [f"{name} {metrics[name]:.3g}" for name in MEASURED_DRIFTS if name in metrics]
    if not drifts or metrics.get("ref_alpha") != 0:
        return None
    if metrics.get("ref_frozen") == 1:
        return f"the reference is frozen for good: {drifts[0]} is beyond its threshold"
    return f"the reference was not moved to the policy: {drifts[0]} is beyond its threshold"
