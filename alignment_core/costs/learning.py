"""What an ended run tells of the rates of its machine."""

from collections.abc import Mapping

from alignment_core.costs.rates import Rate
from alignment_core.costs.work import TimedPhase, Work

BRIEF_SECONDS = (
    0.5  # phases that are shorter say more of the clock than of the machine, unless they were thought to be longer
)
LEAST_SAVED_BYTES = 2**27  # less says more of opening files and hashing than of the disk
LAUNCH_BOUND = 0.7  # of the time: small micro-batches that wait for their kernels say nothing of larger ones
APART: tuple[TimedPhase, ...] = ("loading", "caching", "compiling", "saving", "evaluating")
ONLINE: tuple[TimedPhase, ...] = ("training", "sampling", "scoring")


def learnt(work: Work, seconds: Mapping[str, float], known: Mapping[str, Rate]) -> dict[str, float]:
    """Rates by phase, from how long a run said that it was in each.

    A run draws the images of its report and of its probes in a phase `sampling`, which is part of what `evaluating` is estimated for. An
    online method draws and judges within `training`: the three are taken to be faster or slower than was `known` by the same factor.
    """
    took = {**seconds, "evaluating": seconds.get("evaluating", 0.0) + seconds.get("sampling", 0.0)}
    timed: list[TimedPhase] = [
        phase
        for phase in APART
        if work.of(phase) > 0
        and (phase != "saving" or work.saving_bytes >= LEAST_SAVED_BYTES)
        and _tells(took.get(phase, 0.0), work.of(phase), known[phase])
    ]
    found: dict[str, float] = {phase: work.of(phase) / took[phase] for phase in timed}
    training, (_, launch_seconds, _) = seconds.get("training", 0.0), known["training"].launch_seconds
    if training < BRIEF_SECONDS or work.training_launches * launch_seconds > LAUNCH_BOUND * training:
        return found
    together: list[TimedPhase] = [phase for phase in ONLINE if work.of(phase) > 0]
    faster = sum(work.of(phase) / known[phase].expected for phase in together) / training
    return found | {phase: known[phase].expected * faster for phase in together}


def _tells(seconds: float, work: float, known: Rate) -> bool:
    """Whether a phase took long enough to be measured, or far less than was expected of it."""
    return seconds >= BRIEF_SECONDS or (seconds > 0 and work / known.expected > BRIEF_SECONDS + seconds)
