"""Reports: what preflight says of a dataset and what evaluation says of a model, as pure data.

They are stored as JSON and served by the API, so they live apart from the code that fills them in.
"""

from alignment_core.reports.base import ReportBase
from alignment_core.reports.comparison import Diversity, Drift, DriftBin, RewardComparison
from alignment_core.reports.data import SIDES, DatasetProblem, DatasetReport, RowProblem, next_side
from alignment_core.reports.evaluation import (
    BinTable,
    ComparedModel,
    Curve,
    EvaluationReport,
    HumanComparison,
    ImageScores,
    RunWarning,
    Subject,
)
from alignment_core.reports.intervals import Interval, IntervalMethod, holm, wilson_interval
from alignment_core.reports.proof import (
    ContenderFacts,
    ImageRecipe,
    ProofReport,
    ScoredBy,
    ScoreDifference,
    Standing,
    Standings,
    StartingNoise,
    VerificationReport,
)
from alignment_core.reports.weights import LoraReport, StartingPoint, WeightsReport
