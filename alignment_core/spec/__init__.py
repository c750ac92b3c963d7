"""What may be asked for, as frozen data; `docs/methods.md` has the equations.

The parts that a spec is written with, re-exported from the modules that define them.
"""

from alignment_core.spec.base import Spec
from alignment_core.spec.candidates import CandidatesSpec, Contest, DrawnAlready
from alignment_core.spec.evaluation import EvaluationSpec
from alignment_core.spec.guards import GuardsSpec
from alignment_core.spec.job import JobSpec, MethodSpec, OfflineMethodSpec, sha256_of_json
from alignment_core.spec.online import D3POSpec, DDPOSpec, DPOKSpec, OnlineMethodSpec, TailorPOSpec
from alignment_core.spec.pairs import DiffusionDPOSpec, MaPOSpec, PairMethodSpec, TransformSpec
from alignment_core.spec.prompts import LocalPrompts, PromptSetSource
from alignment_core.spec.proof import ContenderSpec, LocalDenoiser, ProofSpec, StoredDenoiser
from alignment_core.spec.reference import FrozenReference, HardCopyReference, ReferenceSpec
from alignment_core.spec.rewards import (
    AestheticReward,
    AttributeClassifierReward,
    BrightnessReward,
    ClipScoreReward,
    ColorfulnessReward,
    HpsV2Reward,
    HpsV21Reward,
    ImageRewardReward,
    JpegSizeReward,
    PickScoreReward,
    RemoteReward,
    RewardSpec,
    SingleRewardSpec,
    SymmetryReward,
    WeightedSumReward,
    reward_name,
)
from alignment_core.spec.sources import (
    AliasSource,
    CatalogSource,
    CheckpointSource,
    ColumnMapping,
    DatasetSpec,
    HubDataset,
    HubSource,
    LocalDataset,
    LocalSource,
    ModelSpec,
    Name,
    SingleFileSource,
    StoredDataset,
    WeightsSpec,
)
from alignment_core.spec.start import HubLora, LocalLora, StartSpec, StoredLora
from alignment_core.spec.timesteps import TimestepSpec, UniformTimesteps
from alignment_core.spec.training import (
    AdapterSpec,
    CheckpointSpec,
    FullFineTune,
    LoraAdapter,
    ResourceSpec,
    TrainingSpec,
)
from alignment_core.spec.unpaired import DiffusionKTOSpec, ImageMethodSpec
