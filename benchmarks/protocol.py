"""What the reproduction runs, fixed before any test seed was run: rows, budgets, seeds, prompts, tests.

The rows are the tables of Kang et al. (arXiv 2505.18736) and of TailorPO (arXiv 2502.01667), scaled down to the demo model.
Settings of the families come from the demo's job and from `tests/science`; only beta is tuned, with the same grid for every
variant, on other seeds and other prompts than those of the tables.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from demo.assets import ASSETS
from demo.captions import train_captions

Family = Literal["offline", "online"]

TEST_SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101)
BETAS = (250.0, 1000.0, 4000.0)
CONTROL_BETAS = (500.0, 2000.0)  # plain Diffusion-DPO's alone; added in its favour once its curve had been seen
COMMON_BETA = 1000.0
MAX_LOSS_OF_FOLLOWING = (
    0.05  # a beta is eligible when prompt-following falls by no more than this on the tuning prompts
)

TRAINING_PROMPTS = tuple(caption.text for caption in train_captions())
TEST_PROMPTS = tuple((ASSETS / "prompts.txt").read_text().splitlines())[:48]
TUNING_PROMPTS = TRAINING_PROMPTS[:: len(TRAINING_PROMPTS) // 32][:32]

REWARD = {"type": "colorfulness"}
HELD_OUT_REWARD = {"type": "brightness"}  # free, not asked for, and not saturated on this model as a classifier is
JUDGE = {"type": "attribute_classifier", "weights": {"type": "local", "path": str(ASSETS / "classifiers" / "judge")}}

DRAWING = {"prompts": TRAINING_PROMPTS, "num_inference_steps": 10, "guidance_scale": 2.5}
SAMPLED = {"reward": REWARD, "prompts_per_iteration": 16, "samples_per_prompt": 4, "ratio_clamp": 0.01}
RANKED = {"rewards": (REWARD,)}

DPO = {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(ASSETS / "pairs.parquet")}}
D3PO = {"type": "d3po", **DRAWING, **RANKED, "num_trained_steps": 5}
TAILORPO = {"type": "tailorpo", **DRAWING, **RANKED}
DPOK = {"type": "dpok", **DRAWING, **SAMPLED, "baseline": "prompt", "buffer_iterations": 1}
DDPO = {"type": "ddpo", **DRAWING, **SAMPLED, "advantage": "prompt"}


@dataclass(frozen=True)
class Row:
    """One line of the table. `preset_reference` and `preset_timesteps` name presets; None is the plain method."""

    key: str
    label: str
    family: Family
    method: dict[str, Any] = field(repr=False)
    steps: int
    batch_size: int
    preset_reference: str | None = None
    preset_timesteps: str | None = None


def _dpo(key: str, label: str, reference: str | None, timesteps: str | None) -> Row:
    return Row(key, label, "offline", DPO, 120, 16, reference, timesteps)


def _with_both(plain: Row) -> list[Row]:
    return [
        Row(
            f"{plain.key}_both_{name}",
            f"{plain.label} + both, {name}",
            plain.family,
            plain.method,
            plain.steps,
            plain.batch_size,
            name,
            name,
        )
        for name in PRESETS
    ]


PRESETS = ("paper", "seed", "adaptive")
PLAIN_DPO = _dpo("dpo", "Diffusion-DPO", None, None)
PLAIN_D3PO = Row("d3po", "D3PO", "online", D3PO, 75, 16)
PLAIN_DPOK = Row("dpok", "DPOK", "online", DPOK, 40, 128)
PLAIN_TAILORPO = Row("tailorpo", "TailorPO", "online", TAILORPO, 50, 16)
TAILORPO_G = Row("tailorpo_g", "TailorPO-G", "online", {**TAILORPO, "guidance": {}}, 50, 16)
PLAIN_DDPO = Row("ddpo", "DDPO", "online", DDPO, 40, 160)

ROWS = (
    PLAIN_DPO,
    *[_dpo(f"dpo_reference_{name}", f"Diffusion-DPO + reference, {name}", name, None) for name in PRESETS],
    *[_dpo(f"dpo_timesteps_{name}", f"Diffusion-DPO + timesteps, {name}", None, name) for name in PRESETS],
    *_with_both(PLAIN_DPO),
    PLAIN_D3PO,
    *_with_both(PLAIN_D3PO),
    PLAIN_DPOK,
    *_with_both(PLAIN_DPOK),
    PLAIN_DDPO,
    PLAIN_TAILORPO,
    *_with_both(PLAIN_TAILORPO),
    TAILORPO_G,
)

TUNED = (PLAIN_DPO, *_with_both(PLAIN_DPO))  # each at every beta, so that a variant is a curve and not a point


@dataclass(frozen=True)
class Comparison:
    """A planned test: does `better` gain more than `than`, paired by seed?  `tuned` compares each at its own beta."""

    better: str
    than: str
    tuned: bool = False


COMPARISONS = (
    *[Comparison(f"dpo_reference_{name}", "dpo") for name in PRESETS],
    *[Comparison(f"dpo_timesteps_{name}", "dpo") for name in PRESETS],
    *[Comparison(f"dpo_both_{name}", "dpo") for name in PRESETS],
    *[Comparison(f"dpo_both_{name}", "dpo", tuned=True) for name in PRESETS],
    *[Comparison(f"{plain}_both_{name}", plain) for plain in ("d3po", "dpok", "tailorpo") for name in PRESETS],
    Comparison("tailorpo", "d3po"),
    Comparison("tailorpo", "ddpo"),
    Comparison("tailorpo_g", "tailorpo"),
)


def spec_of(row: Row, seed: int, *, beta: float | None = None, tuning: bool = False) -> dict[str, Any]:
    """The spec of one run; `tuning` judges on the tuning prompts. `beta` is left out for the method's own."""
    offline = row.family == "offline"
    method = {**row.method, "beta": beta or COMMON_BETA} if offline else row.method
    return {
        "model": {"type": "local", "path": str(ASSETS / "model")},
        "method": method,
        "reference": _preset(row.preset_reference) or {"type": "frozen"},
        "timesteps": _preset(row.preset_timesteps) or {"type": "uniform"},
        "adapter": {"type": "lora", "rank": 8} if offline else {"type": "full"},
        "training": {
            "steps": row.steps,
            "batch_size": row.batch_size,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3 if offline else 2e-4,
            "weight_decay": 1e-2 if offline else 1e-4,
        },
        "evaluation": {
            "prompts": TUNING_PROMPTS if tuning else TEST_PROMPTS,
            "seeds_per_prompt": 2,
            "num_inference_steps": 12,
            "guidance_scale": 2.5,
            "batch_size": 32,
            "grid_prompts": 1,
            "bootstrap_resamples": 100,
            "rewards": (REWARD, HELD_OUT_REWARD),
            "prompt_following": JUDGE,
        },
        "resources": {"device": "cpu", "num_cpu_threads": 1},
        "seed": seed,
    }


def _preset(name: str | None) -> dict[str, str] | None:
    return None if name is None else {"type": "preset", "name": name}
