"""What users may do next: jobs, evaluations, sweeps, stops, names, policies, uploads and deletions."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.simulation import asking, deletions, keeping, submits, uploads
from benchmarks.simulation.asking import Stop
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.rules.choices import Machine, deaths, has, has_jobs, later_deaths, which, yes
from benchmarks.simulation.submits import Beginning
from service.store.records.jobs import PauseKeeps
from service.store.retention_rules import Policy

policies = st.builds(
    Policy,
    keep_last=st.sampled_from([None, 1, 2]),
    ttl_days=st.sampled_from([None, 0.5, 20.0]),
    unfinished_days=st.sampled_from([None, None, 1.0]),
)


@rule(index=which, begins=st.sampled_from(["base", "resume", "warm_start"]), times=st.integers(1, 2), death=deaths)
def submit(machine: Machine, index: int, begins: Beginning, times: int, death: Death | None) -> None:
    submits.submit(machine.world, index, begins, times, death)
    machine.took(f"submit, {begins}")


@rule(index=which, death=deaths)
def evaluate(machine: Machine, index: int, death: Death | None) -> None:
    submits.evaluate(machine.world, index, death)
    machine.took("evaluate")


def _has_proof(machine: Machine) -> bool:
    return any(one.id.startswith("eval_") and one.state == "succeeded" for one in machine.world.told.jobs.values())


@precondition(_has_proof)
@rule(index=which)
def verify(machine: Machine, index: int) -> None:
    submits.verify(machine.world, index)
    machine.took("verify")


@rule(index=which, num=st.integers(1, 3), at_once=st.integers(1, 2), death=later_deaths)
def sweep_settings(machine: Machine, index: int, num: int, at_once: int, death: Death | None) -> None:
    submits.sweep(machine.world, index, num, at_once, death)
    machine.took("sweep of trials")


@has("jobs")
@rule(
    index=which,
    verb=st.sampled_from(["cancel", "pause", "resume"]),
    keeps=st.sampled_from(["last_step", "last_checkpoint"]),
    death=deaths,
)
def stop(machine: Machine, index: int, verb: Stop, keeps: PauseKeeps, death: Death | None) -> None:
    asking.stop(machine.world, index, verb, keeps, death)
    machine.took(verb if verb != "pause" else f"pause, keep {keeps}")


@has("sweeps")
@rule(index=which, death=later_deaths)
def cancel_sweep(machine: Machine, index: int, death: Death | None) -> None:
    asking.cancel_sweep(machine.world, index, death)
    machine.took("cancel a sweep")


@has_jobs("job_")
@rule(index=which)
def act_on(machine: Machine, index: int) -> None:
    asking.act_on(machine.world, index)
    machine.took("action")


@has("checkpoints")
@rule(index=which, death=deaths)
def export(machine: Machine, index: int, death: Death | None) -> None:
    asking.export(machine.world, index, death)
    machine.took("export")


@has("checkpoints")
@rule(index=which, is_pinned=yes)
def pin(machine: Machine, index: int, is_pinned: bool) -> None:
    keeping.pin(machine.world, index, is_pinned=is_pinned)
    machine.took("pin" if is_pinned else "unpin")


@has("checkpoints")
@rule(index=which, alias=st.sampled_from(["champion", "candidate"]), force=yes, death=deaths)
def promote(machine: Machine, index: int, alias: str, force: bool, death: Death | None) -> None:
    keeping.promote(machine.world, index, alias, force=force, death=death)
    machine.took("promote")


@has("aliases")
@rule(index=which)
def retire(machine: Machine, index: int) -> None:
    keeping.retire(machine.world, index)
    machine.took("retire an alias")


@rule(index=which, policy=policies)
def set_policy(machine: Machine, index: int, policy: Policy) -> None:
    keeping.set_policy(machine.world, index, policy)
    machine.took("policy")


@rule(what=st.sampled_from(list(deletions.DELETIONS)), index=which, even_result=yes, death=deaths)
def delete(machine: Machine, what: deletions.Deletion, index: int, even_result: bool, death: Death | None) -> None:
    if deletions.delete(machine.world, what, index, even_result=even_result, death=death):
        machine.took(f"delete {what}")


@rule(what=st.sampled_from(["upload", "arrive", "prompts", "claim"]), index=which, death=deaths)
def upload(machine: Machine, what: uploads.Step, index: int, death: Death | None) -> None:
    uploads.go_on(machine.world, what, index, death)
    machine.took(f"uploads: {what}")


RULES = (
    submit,
    evaluate,
    verify,
    sweep_settings,
    stop,
    cancel_sweep,
    act_on,
    export,
    pin,
    promote,
    retire,
    set_policy,
    delete,
    upload,
)
