"""What people who judge may do next."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from benchmarks.simulation import judged_data, judges
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.rules.choices import Machine, deaths, has, has_jobs, knows, which
from service.store.labelings import Choice

choices = st.sampled_from(["first", "second", "tie", "both_bad", "skip", None])


@rule(index=which, times=st.integers(1, 2), death=deaths)
def ask_for_candidates(machine: Machine, index: int, times: int, death: Death | None) -> None:
    judges.ask_for(machine.world, index, times, death)
    machine.took("candidates")


@has_jobs("cand_")
@rule(index=which, death=deaths)
def delete_candidates(machine: Machine, index: int, death: Death | None) -> None:
    judges.delete_candidates(machine.world, index, death)
    machine.took("delete candidates")


@has_jobs("cand_")
@rule(index=which, times=st.integers(1, 2), death=deaths)
def label(machine: Machine, index: int, times: int, death: Death | None) -> None:
    judges.label(machine.world, index, times, death)
    machine.took("labeling")


@has("labelings")
@rule(index=which, death=deaths)
def delete_labeling(machine: Machine, index: int, death: Death | None) -> None:
    judges.delete(machine.world, index, death)
    machine.took("delete a labeling")


@knows("ballots")
@rule(index=which, annotator=st.sampled_from(["ada", "bob"]), choice=choices, times=st.integers(1, 2), death=deaths)
def vote(machine: Machine, index: int, annotator: str, choice: Choice | None, times: int, death: Death | None) -> None:
    judges.vote(machine.world, index, annotator, choice, times, death)
    machine.took("vote" if choice else "a vote is taken back")


@knows("ballots")
@rule(annotator=st.sampled_from(["ada", "bob"]), said=st.lists(choices, min_size=2, max_size=4))
def judge(machine: Machine, annotator: str, said: list[Choice | None]) -> None:
    """What mostly happens: one question after the other."""
    for number, choice in enumerate(said):
        judges.vote(machine.world, number, annotator, choice, 1, None)
    machine.took("votes")


@has("labelings")
@rule(index=which, both_bad=st.sampled_from(["drop", "tie"]), death=deaths)
def make_data(machine: Machine, index: int, both_bad: judged_data.BothBad, death: Death | None) -> None:
    judged_data.make(machine.world, index, both_bad, death)
    judged_data.check(machine.world)
    machine.took("data of a labeling")


@knows("unanswered")
@rule(index=which, death=deaths)
def make_data_again(machine: Machine, index: int, death: Death | None) -> None:
    judged_data.make_again(machine.world, index, death)
    judged_data.check(machine.world)
    machine.took("data of a labeling, asked for again")


RULES = (ask_for_candidates, delete_candidates, label, delete_labeling, vote, judge, make_data, make_data_again)
