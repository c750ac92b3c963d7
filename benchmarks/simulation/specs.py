"""The specs that simulated users send: valid ones, and as small as they can be."""

from typing import Any

from alignment_core.spec import CandidatesSpec, JobSpec, ProofSpec

MODEL = {"type": "catalog", "name": "shapes"}
CONTENDERS = ("base", "aligned")


def job_spec(dataset_id: str, *, start_from: str | None = None, prompt_set_id: str | None = None) -> JobSpec:
    """A job on a data set; on the LoRA of a checkpoint or of weights; judged on a prompt set."""
    spec: dict[str, Any] = {
        "model": MODEL,
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}},
        "training": {"steps": 9},
    }
    if start_from is not None:
        kind = "checkpoint" if start_from.startswith("ckpt_") else "stored"
        spec["start"] = {"lora": {"type": kind, "id": start_from}}
    if prompt_set_id is not None:
        prompts = {"type": "prompt_set", "id": prompt_set_id}
        spec["evaluation"] = {"prompts": prompts, "rewards": [{"type": "colorfulness"}]}
    return JobSpec.model_validate(spec)


def proof_spec(checkpoint_ids: list[str], prompt_set_id: str | None) -> ProofSpec:
    contenders = [{"name": "base", "model": MODEL}]
    contenders += [
        {"name": f"aligned-{number}", "model": MODEL, "lora": {"type": "checkpoint", "id": one}}
        for number, one in enumerate(checkpoint_ids)
    ]
    prompts: Any = ["a", "b"] if prompt_set_id is None else {"type": "prompt_set", "id": prompt_set_id}
    return ProofSpec.model_validate(
        {"contenders": contenders, "prompts": prompts, "rewards": [{"type": "colorfulness"}]}
    )


def candidates_spec(checkpoint_id: str, prompt_set_id: str | None) -> CandidatesSpec:
    """Two images of the base and two of a checkpoint."""
    base, aligned = ({"name": name, "model": MODEL} for name in CONTENDERS)
    prompts: Any = ["a"] if prompt_set_id is None else {"type": "prompt_set", "id": prompt_set_id}
    lora = {"type": "checkpoint", "id": checkpoint_id}
    return CandidatesSpec.model_validate(
        {"contenders": [base, {**aligned, "lora": lora}], "prompts": prompts, "seeds_per_prompt": 2}
    )
