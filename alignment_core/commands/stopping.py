"""When a command leaves the run that it follows."""

import os
import threading

from alignment_core.events import Event


def should_stop(stop: threading.Event, event: Event) -> bool:
    """Whether to leave now. Several processes leave after the same event, or one would wait for the others for ever."""
    if event.type == "run_completed":
        return False
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return stop.is_set()
    from accelerate.utils import reduce
    from torch import tensor

    all_are_here = event.type == "step_completed" or (event.type == "phase_progressed" and event.phase == "sampling")
    return all_are_here and bool(reduce(tensor(float(stop.is_set())), "sum"))
