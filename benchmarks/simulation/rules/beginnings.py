"""What there is when a history begins, beside a job at work: what takes many steps to come about is there now and then from the start."""

from typing import Literal, assert_never

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from benchmarks.simulation import hooks, jobs_at_work, judges, runs
from benchmarks.simulation.rules.choices import Machine
from benchmarks.simulation.world import World

Beginning = Literal["no more", "webhooks", "candidates", "a labeling"]


@initialize(what=st.sampled_from(["no more", "no more", "webhooks", "candidates", "a labeling"]))
def begin_with(machine: Machine, what: Beginning) -> None:
    there_are(machine.world, what)
    machine.took(f"a beginning with {what}")


def there_are(world: World, what: Beginning) -> None:
    match what:
        case "no more":
            pass
        case "webhooks":
            hooks.add(world, None)
            hooks.add(world, None)
        case "candidates":
            runs.train(world, 0, 1, ends=True)
            judges.ask_for(world, 0, 1, None)
            jobs_at_work.claim(world, 0, None)
        case "a labeling":
            there_are(world, "candidates")
            runs.train(world, 0, 3, ends=True)
            judges.label(world, 0, 1, None)
        case _:
            assert_never(what)


RULES = (begin_with,)
