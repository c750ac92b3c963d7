"""A history: what may happen next, whatever happened before, is in `rules/`. Each rule is taken, and then every claim is looked at."""

from typing import ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from benchmarks.simulation import hooks, jobs_at_work, submits, uploads
from benchmarks.simulation.rules import beginnings, judges, users, webhooks, workers
from benchmarks.simulation.world import World

RULES = (*beginnings.RULES, *users.RULES, *judges.RULES, *webhooks.RULES, *workers.RULES)


def begin(world: World) -> None:
    """Empty it, but for a job at work on a data set."""
    world.begin()
    uploads.create(world, None)
    uploads.arrive(world, 0, None)
    uploads.claim(world, 0, None)
    uploads.check(world, 0, "ready", None)
    submits.submit(world, 0, "base", 1, None)
    jobs_at_work.claim(world, 0, None)
    world.check()


class Histories(RuleBasedStateMachine):
    """A subclass has the world and the rules."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        begin(self.world)

    def teardown(self) -> None:
        self.world.end()

    def took(self, name: str) -> None:
        self.world.rules[name] += 1
        self.world.check()
        hooks.adopt(self.world, self.world.rows)


def histories_on(world: World) -> type[Histories]:
    return type("Histories", (Histories,), {"world": world, **{one.__name__: one for one in RULES}})
