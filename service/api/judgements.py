"""What follows from the votes of a labeling: agreement, who won, and pairs to train on. Pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from alignment_core.reports import HumanComparison, wilson_interval
from service.api.agreement import cohens_kappa, krippendorffs_alpha
from service.api.schemas.labelings import AnnotatorResults, LabelingResults, PairAgreement, SelfAgreement
from service.store.pairing import Question
from service.store.records.candidates import LabelingRecord, VoteRecord

CONFIDENCE = 0.95
MOST_ANNOTATORS = 20  # of whom every two are compared
SECOND_PREFERRED = {"first": 0.0, "second": 1.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True)
class Judged:
    """A pair and the probability that its second image is preferred, by as many votes."""

    question: Question
    second: float
    num_votes: int


def results_of(labeling: LabelingRecord, questions: Sequence[Question], votes: Sequence[VoteRecord]) -> LabelingResults:
    said: dict[str, dict[int, str]] = {}
    for one in votes:
        said.setdefault(one.annotator, {})[one.number] = one.choice
    names = sorted(said)
    originals = [one.number for one in questions if one.repeat_of is None]
    told = {name: {n: c for n, c in said[name].items() if c != "skip"} for name in names}
    units = [[told[name][n] for name in names if n in told[name]] for n in originals]
    return LabelingResults(
        labeling_id=labeling.id,
        num_judged_pairs=sum(bool(unit) for unit in units),
        annotators=[
            AnnotatorResults(
                annotator=name,
                answered=len(said[name]),
                skipped=len(said[name]) - len(told[name]),
                itself=_itself(told[name], questions),
            )
            for name in names
        ],
        agreement=[_agreement(a, b, told, originals) for a, b in combinations(names[:MOST_ANNOTATORS], 2)],
        alpha=krippendorffs_alpha(units) if len(names) > 1 else None,
        human=human_comparison(labeling, questions, votes),
    )


def _itself(told: Mapping[int, str], questions: Sequence[Question]) -> SelfAgreement:
    pairs = [
        (told[one.repeat_of], told[one.number])
        for one in questions
        if one.repeat_of is not None and one.repeat_of in told and one.number in told
    ]
    return SelfAgreement(num_pairs=len(pairs), agreed=_share(pairs), kappa=cohens_kappa(pairs))


def _agreement(a: str, b: str, told: Mapping[str, Mapping[int, str]], originals: Sequence[int]) -> PairAgreement:
    pairs = [(told[a][n], told[b][n]) for n in originals if n in told[a] and n in told[b]]
    return PairAgreement(annotators=[a, b], num_pairs=len(pairs), agreed=_share(pairs), kappa=cohens_kappa(pairs))


def _share(pairs: Sequence[tuple[str, str]]) -> float | None:
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def judged_pairs(
    questions: Sequence[Question], votes: Sequence[VoteRecord], both_bad: Literal["drop", "tie"]
) -> Iterator[Judged]:
    """Every pair that somebody judged. Nobody counts twice: what is asked again says how sure they are, and is no second vote."""
    by_number: dict[int, list[float]] = {}
    for one in votes:
        if one.choice != "skip" and not (one.choice == "both_bad" and both_bad == "drop"):
            by_number.setdefault(one.number, []).append(SECOND_PREFERRED[one.choice])
    for question in questions:
        if question.repeat_of is None and (found := by_number.get(question.number)):
            yield Judged(question, sum(found) / len(found), len(found))


def human_comparison(
    labeling: LabelingRecord, questions: Sequence[Question], votes: Sequence[VoteRecord]
) -> HumanComparison | None:
    """Who won, pair by pair, by what most people say of it; None where nothing is compared, or nobody has judged."""
    judged = list(judged_pairs(questions, votes, "tie"))
    if labeling.between is None or not judged:
        return None
    won = sum(one.second > 0.5 for one in judged)
    ties = sum(one.second == 0.5 for one in judged)
    base, policy = labeling.between
    return HumanComparison(
        labeling_id=labeling.id,
        base=base,
        policy=policy,
        num_pairs=len(judged),
        num_votes=sum(one.num_votes for one in judged),
        num_annotators=len({one.annotator for one in votes if one.choice != "skip"}),
        won=won,
        lost=len(judged) - won - ties,
        ties=ties,
        win_rate=(won + ties / 2) / len(judged),
        wilson_interval=wilson_interval(won + ties / 2, len(judged), CONFIDENCE),
    )
