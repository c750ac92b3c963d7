"""What workers may do next, the lost ones too, and what the service does by itself while time passes."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.simulation import exports_at_work, house, jobs_at_work, runs, uploads
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import End
from benchmarks.simulation.rules.choices import Machine, deaths, has, knows, later_deaths, which, yes

DAY = 24 * 3600.0


@has("jobs")
@rule(index=which, death=deaths)
def claim(machine: Machine, index: int, death: Death | None) -> None:
    jobs_at_work.claim(machine.world, index, death)
    machine.took("claim")


@knows("attempts")
@rule(index=which, num=st.integers(1, 3), ends=yes)
def train(machine: Machine, index: int, num: int, ends: bool) -> None:
    """What mostly happens: some steps with their checkpoint, and with luck the end. So a history gets somewhere."""
    runs.train(machine.world, index, num, ends=ends)
    machine.took("steps, a checkpoint and the end" if ends else "steps and a checkpoint")


@knows("attempts")
@rule(index=which)
def renew(machine: Machine, index: int) -> None:
    jobs_at_work.renew(machine.world, index)
    machine.took("renew")


@knows("attempts")
@rule(index=which, death=deaths)
def start(machine: Machine, index: int, death: Death | None) -> None:
    runs.start(machine.world, index, death)
    machine.took("a run starts")


@knows("attempts")
@rule(index=which, skew_seconds=st.sampled_from([0.0, -40.0, 40.0]))
def change_phase(machine: Machine, index: int, skew_seconds: float) -> None:
    runs.change_phase(machine.world, index, skew_seconds)
    machine.took("a phase")


@knows("attempts")
@rule(index=which, death=deaths)
def step(machine: Machine, index: int, death: Death | None) -> None:
    runs.step(machine.world, index, death)
    machine.took("a step")


@knows("attempts")
@rule(index=which, is_best=yes, is_final=yes, death=deaths)
def save(machine: Machine, index: int, is_best: bool, is_final: bool, death: Death | None) -> None:
    runs.save(machine.world, index, is_best, is_final, death)
    machine.took("a checkpoint")


@knows("attempts")
@rule(index=which, death=deaths)
def draw(machine: Machine, index: int, death: Death | None) -> None:
    runs.draw(machine.world, index, death)
    machine.took("a picture")


@knows("attempts")
@rule(index=which, death=deaths)
def report(machine: Machine, index: int, death: Death | None) -> None:
    runs.report(machine.world, index, death)
    machine.took("a report")


@precondition(lambda machine: machine.world.attempts and any(one.actions for one in machine.world.told.jobs.values()))
@rule(index=which, death=deaths)
def answer(machine: Machine, index: int, death: Death | None) -> None:
    runs.answer(machine.world, index, death)
    machine.took("an action is answered")


@knows("attempts")
@rule(index=which, death=deaths)
def complete(machine: Machine, index: int, death: Death | None) -> None:
    runs.complete(machine.world, index, death)
    machine.took("a run completes")


@knows("attempts")
@rule(index=which, retryable=yes, death=deaths)
def fail(machine: Machine, index: int, retryable: bool, death: Death | None) -> None:
    runs.fail(machine.world, index, retryable, death)
    machine.took("a run fails")


@knows("attempts")
@rule(
    index=which,
    how=st.sampled_from(["succeeded", "failed", "stopped", "give_back", "suspend"]),
    retryable=yes,
    death=deaths,
)
def end(machine: Machine, index: int, how: End, retryable: bool, death: Death | None) -> None:
    jobs_at_work.end(machine.world, index, how, retryable, death)
    machine.took(f"an attempt ends: {how}")


@has("exports")
@rule(index=which, death=deaths)
def claim_export(machine: Machine, index: int, death: Death | None) -> None:
    exports_at_work.claim(machine.world, index, death)
    machine.took("claim an export")


@knows("makers")
@rule(index=which, what=st.sampled_from(["renew", "finish", "fail", "give_back"]), death=deaths)
def make_export(machine: Machine, index: int, what: exports_at_work.Making, death: Death | None) -> None:
    exports_at_work.make(machine.world, index, what, death)
    machine.took(f"an export: {what}")


@knows("checkers")
@rule(index=which, what=st.sampled_from(["renew", "ready", "ready", "fail", "give_back"]), death=deaths)
def check_upload(machine: Machine, index: int, what: uploads.Check, death: Death | None) -> None:
    uploads.check(machine.world, index, what, death)
    machine.took(f"a check: {what}")


@rule(seconds=st.sampled_from([1.0, 61.0, 61.0, 3700.0, 1.1 * DAY, 40 * DAY]))
def time_passes(machine: Machine, seconds: float) -> None:
    machine.world.clock.pass_by(seconds)
    machine.took("time passes")


@rule(what=st.sampled_from(list(house.CHORES)), death=later_deaths)
def chore(machine: Machine, what: str, death: Death | None) -> None:
    house.CHORES[what](machine.world, death)
    machine.took(what)


RULES = (
    claim,
    train,
    renew,
    start,
    change_phase,
    step,
    save,
    draw,
    report,
    answer,
    complete,
    fail,
    end,
    claim_export,
    make_export,
    check_upload,
    time_passes,
    chore,
)
