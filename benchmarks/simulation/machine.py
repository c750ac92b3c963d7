"""The rules of a history: what may happen next, whatever happened before. Each is taken, and then every claim is looked at."""

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from benchmarks.simulation import exports_at_work, house, jobs_at_work, owners, uploads
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import End
from benchmarks.simulation.owners import Beginning, Stop
from benchmarks.simulation.world import World
from service.store.records import PauseKeeps
from service.store.retention_rules import Policy

DAY = 24 * 3600.0

which = st.integers(0, 5)
yes = st.booleans()
deaths = st.sampled_from(
    [None, None, None, None, Death("before"), Death("after"), Death("object"), Death("object", 1), Death("after", 1)]
)
later_deaths = st.sampled_from(
    [None, None, *(Death(when, number) for when in ("before", "after") for number in range(4)), Death("object", 2)]
)

policies = st.builds(
    Policy,
    keep_last=st.sampled_from([None, 1, 2]),
    ttl_days=st.sampled_from([None, 0.5, 20.0]),
    unfinished_days=st.sampled_from([None, None, 1.0]),
)


def has(*names: str) -> Any:
    """Whether the record has any of each of these."""
    return precondition(lambda self: all(getattr(self.world.told, name) for name in names))


def has_jobs(prefix: str) -> Any:
    return precondition(lambda self: any(one.startswith(prefix) for one in self.world.told.jobs))


def knows(name: str) -> Any:
    """Whether there is an attempt, lost or not, that may do something."""
    return precondition(lambda self: bool(getattr(self.world, name)))


def begin(world: World) -> None:
    """Empty it, but for a job at work on a data set."""
    world.begin()
    uploads.create(world, None)
    uploads.arrive(world, 0, None)
    uploads.claim(world, 0, None)
    uploads.check(world, 0, "ready", None)
    owners.submit(world, 0, "base", 1, None)
    jobs_at_work.claim(world, 0, None)
    world.check()


class Histories(RuleBasedStateMachine):
    """A subclass has the world."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        begin(self.world)

    def teardown(self) -> None:
        self.world.end()

    def _took(self, name: str) -> None:
        self.world.rules[name] += 1
        self.world.check()

    # --- users -----------------------------------------------------------------------------------------------------

    @rule(index=which, begins=st.sampled_from(["base", "resume", "warm_start"]), times=st.integers(1, 2), death=deaths)
    def submit(self, index: int, begins: Beginning, times: int, death: Death | None) -> None:
        owners.submit(self.world, index, begins, times, death)
        self._took(f"submit, {begins}")

    @rule(index=which, death=deaths)
    def evaluate(self, index: int, death: Death | None) -> None:
        owners.evaluate(self.world, index, death)
        self._took("evaluate")

    @precondition(lambda self: self._has_proof())
    @rule(index=which)
    def verify(self, index: int) -> None:
        owners.verify(self.world, index)
        self._took("verify")

    def _has_proof(self) -> bool:
        return any(one.id.startswith("eval_") and one.state == "succeeded" for one in self.world.told.jobs.values())

    @rule(index=which, num=st.integers(1, 3), at_once=st.integers(1, 2), death=later_deaths)
    def sweep_settings(self, index: int, num: int, at_once: int, death: Death | None) -> None:
        owners.sweep(self.world, index, num, at_once, death)
        self._took("sweep of trials")

    @has("jobs")
    @rule(
        index=which,
        verb=st.sampled_from(["cancel", "pause", "resume"]),
        keeps=st.sampled_from(["last_step", "last_checkpoint"]),
        death=deaths,
    )
    def stop(self, index: int, verb: Stop, keeps: PauseKeeps, death: Death | None) -> None:
        owners.stop(self.world, index, verb, keeps, death)
        self._took(verb if verb != "pause" else f"pause, keep {keeps}")

    @has("sweeps")
    @rule(index=which, death=later_deaths)
    def cancel_sweep(self, index: int, death: Death | None) -> None:
        owners.cancel_sweep(self.world, index, death)
        self._took("cancel a sweep")

    @has_jobs("job_")
    @rule(index=which)
    def act_on(self, index: int) -> None:
        owners.act_on(self.world, index)
        self._took("action")

    @has("checkpoints")
    @rule(index=which, death=deaths)
    def export(self, index: int, death: Death | None) -> None:
        owners.export(self.world, index, death)
        self._took("export")

    @has("checkpoints")
    @rule(index=which, is_pinned=yes)
    def pin(self, index: int, is_pinned: bool) -> None:
        owners.pin(self.world, index, is_pinned=is_pinned)
        self._took("pin" if is_pinned else "unpin")

    @has("checkpoints")
    @rule(index=which, alias=st.sampled_from(["champion", "candidate"]), force=yes, death=deaths)
    def promote(self, index: int, alias: str, force: bool, death: Death | None) -> None:
        owners.promote(self.world, index, alias, force=force, death=death)
        self._took("promote")

    @has("aliases")
    @rule(index=which)
    def retire(self, index: int) -> None:
        owners.retire(self.world, index)
        self._took("retire an alias")

    @rule(index=which, policy=policies)
    def set_policy(self, index: int, policy: Policy) -> None:
        owners.set_policy(self.world, index, policy)
        self._took("policy")

    @rule(what=st.sampled_from(list(owners.DELETIONS)), index=which, even_result=yes, death=deaths)
    def delete(self, what: owners.Deletion, index: int, even_result: bool, death: Death | None) -> None:
        if owners.delete(self.world, what, index, even_result=even_result, death=death):
            self._took(f"delete {what}")

    # --- uploads ---------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["upload", "arrive", "prompts", "claim"]), index=which, death=deaths)
    def upload(self, what: uploads.Step, index: int, death: Death | None) -> None:
        uploads.go_on(self.world, what, index, death)
        self._took(f"uploads: {what}")

    @knows("checkers")
    @rule(index=which, what=st.sampled_from(["renew", "ready", "ready", "fail", "give_back"]), death=deaths)
    def check_upload(self, index: int, what: uploads.Check, death: Death | None) -> None:
        uploads.check(self.world, index, what, death)
        self._took(f"a check: {what}")

    # --- workers ---------------------------------------------------------------------------------------------------

    @has("jobs")
    @rule(index=which, death=deaths)
    def claim(self, index: int, death: Death | None) -> None:
        jobs_at_work.claim(self.world, index, death)
        self._took("claim")

    @knows("attempts")
    @rule(index=which, num=st.integers(1, 3), ends=yes)
    def train(self, index: int, num: int, ends: bool) -> None:
        """What mostly happens: some steps with their checkpoint, and with luck the end. So a history gets somewhere."""
        jobs_at_work.train(self.world, index, num, ends=ends)
        self._took("steps, a checkpoint and the end" if ends else "steps and a checkpoint")

    @knows("attempts")
    @rule(index=which)
    def renew(self, index: int) -> None:
        jobs_at_work.renew(self.world, index)
        self._took("renew")

    @knows("attempts")
    @rule(index=which, death=deaths)
    def start(self, index: int, death: Death | None) -> None:
        jobs_at_work.start(self.world, index, death)
        self._took("a run starts")

    @knows("attempts")
    @rule(index=which, skew_seconds=st.sampled_from([0.0, -40.0, 40.0]))
    def change_phase(self, index: int, skew_seconds: float) -> None:
        jobs_at_work.change_phase(self.world, index, skew_seconds)
        self._took("a phase")

    @knows("attempts")
    @rule(index=which, death=deaths)
    def step(self, index: int, death: Death | None) -> None:
        jobs_at_work.step(self.world, index, death)
        self._took("a step")

    @knows("attempts")
    @rule(index=which, is_best=yes, is_final=yes, death=deaths)
    def save(self, index: int, is_best: bool, is_final: bool, death: Death | None) -> None:
        jobs_at_work.save(self.world, index, is_best, is_final, death)
        self._took("a checkpoint")

    @knows("attempts")
    @rule(index=which, death=deaths)
    def draw(self, index: int, death: Death | None) -> None:
        jobs_at_work.draw(self.world, index, death)
        self._took("a picture")

    @knows("attempts")
    @rule(index=which, death=deaths)
    def report(self, index: int, death: Death | None) -> None:
        jobs_at_work.report(self.world, index, death)
        self._took("a report")

    @precondition(lambda self: self.world.attempts and any(one.actions for one in self.world.told.jobs.values()))
    @rule(index=which, death=deaths)
    def answer(self, index: int, death: Death | None) -> None:
        jobs_at_work.answer(self.world, index, death)
        self._took("an action is answered")

    @knows("attempts")
    @rule(index=which, death=deaths)
    def complete(self, index: int, death: Death | None) -> None:
        jobs_at_work.complete(self.world, index, death)
        self._took("a run completes")

    @knows("attempts")
    @rule(index=which, retryable=yes, death=deaths)
    def fail(self, index: int, retryable: bool, death: Death | None) -> None:
        jobs_at_work.fail(self.world, index, retryable, death)
        self._took("a run fails")

    @knows("attempts")
    @rule(
        index=which,
        how=st.sampled_from(["succeeded", "failed", "stopped", "give_back", "suspend"]),
        retryable=yes,
        death=deaths,
    )
    def end(self, index: int, how: End, retryable: bool, death: Death | None) -> None:
        jobs_at_work.end(self.world, index, how, retryable, death)
        self._took(f"an attempt ends: {how}")

    @has("exports")
    @rule(index=which, death=deaths)
    def claim_export(self, index: int, death: Death | None) -> None:
        exports_at_work.claim(self.world, index, death)
        self._took("claim an export")

    @knows("makers")
    @rule(index=which, what=st.sampled_from(["renew", "finish", "fail", "give_back"]), death=deaths)
    def make_export(self, index: int, what: exports_at_work.Making, death: Death | None) -> None:
        exports_at_work.make(self.world, index, what, death)
        self._took(f"an export: {what}")

    # --- the house -------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 61.0, 61.0, 3700.0, 1.1 * DAY, 40 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.pass_by(seconds)
        self._took("time passes")

    @rule(what=st.sampled_from(list(house.CHORES)), death=later_deaths)
    def chore(self, what: str, death: Death | None) -> None:
        house.CHORES[what](self.world, death)
        self._took(what)


def histories_on(world: World) -> type[Histories]:
    return type("Histories", (Histories,), {"world": world})
