"""The model card of an export: where the weights come from, what the report says of them, and whose licence they have.

The front matter is that of https://huggingface.co/docs/hub/model-cards, so that the folder can be published as it is.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import assert_never

from alignment_core.exports.source import ExportSource
from alignment_core.reports import EvaluationReport, RewardComparison
from alignment_core.spec import HubSource, LocalLora, LocalSource, ModelSpec, SingleFileSource, StartSpec
from alignment_core.spec.counted import counted
from alignment_core.spec.exports import ONE_FILE, ExportFormat
from alignment_core.spec.sources import label_of
from alignment_core.spec.start import lora_label

USE: dict[ExportFormat, str] = {
    "peft": 'PEFT: `PeftModel.from_pretrained(pipeline.unet, "unet")` for each folder of a component.',
    "diffusers": 'diffusers: `pipeline.load_lora_weights("FOLDER")` on the base model.',
    "kohya": f"ComfyUI (`models/loras`), A1111 and Forge (`models/Lora`), InvokeAI, kohya's scripts: `{ONE_FILE['kohya']}`, "
    "under a name of your own.",
    "merged": 'diffusers: `DiffusionPipeline.from_pretrained("FOLDER")`; no other model is needed.',
    "single_file": f"ComfyUI (`models/checkpoints`), A1111, Forge, InvokeAI, diffusers' `from_single_file`: "
    f"`{ONE_FILE['single_file']}`, under a name of your own.",
}
USE_OF_A_DENOISER = "diffusers: `from_pretrained` of the denoiser's class, in place of the base model's own."


def card_of(source: ExportSource, format: ExportFormat, report: EvaluationReport | None) -> str:
    """README.md. What users wrote is quoted as code, so that no name of theirs becomes markup."""
    label, is_denoiser = source.sources.label, format == "diffusers" and source.manifest.kind == "full"
    title = label.job_name or label.job_id or f"step {source.manifest.step}"
    parts = [
        _front_matter(source),
        f"# {_code(title)}",
        f"{_base(source.spec.model)}, aligned with {source.spec.method.type} by Attune {version('attune')}.",
        "## Use",
        USE_OF_A_DENOISER if is_denoiser else USE[format],
        "## Where it comes from",
        "\n".join(_provenance(source)),
        "## What it does",
        "\n".join(_figures(source, report)),
        "## Licence",
        _licence(source),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(source: ExportSource) -> str:
    model = source.spec.model
    tags = ["attune", source.spec.method.type, source.manifest.kind]
    lines = ["library_name: diffusers", "pipeline_tag: text-to-image", f"tags: {json.dumps(tags)}", "license: other"]
    if isinstance(model, HubSource):
        lines += [f"base_model: {model.repo_id}", "license_name: of-the-base-model"]
        lines += [f"license_link: https://huggingface.co/{model.repo_id}/tree/{model.revision}"]
    return "\n".join(["---", *lines, "---"])


def _provenance(source: ExportSource) -> Iterator[str]:
    manifest, label = source.manifest, source.sources.label
    rows = {
        "Job": label.job_id,
        "Base model": _base(source.spec.model),
        "SHA-256 of the base model": manifest.base_model_sha256,
        "Started from": _start(source.spec.start),
        "Method": source.spec.method.type,
        "Data set": label.dataset_name,
        "SHA-256 of the data": manifest.dataset_sha256,
        "Steps": str(manifest.step),
        "Trained": "the whole denoiser" if manifest.kind == "full" else _lora(source),
        "Attune": manifest.versions.get("attune"),
        "SHA-256 of the spec": manifest.spec_sha256,
    }
    yield "| | |"
    yield "|---|---|"
    quoted = ("Job", "Data set")
    yield from (f"| {name} | {_code(value) if name in quoted else value} |" for name, value in rows.items() if value)


def _start(start: StartSpec | None) -> str | None:
    """The LoRA of others that is in these weights."""
    if start is None:
        return None
    name = lora_label(start.lora)
    label = _code(_last_part(name) if isinstance(start.lora, LocalLora) else name)
    match start.mode:
        case "merge":
            return f"the LoRA {label}, merged into the base model and part of these weights"
        case "train":
            return f"the LoRA {label}, trained further"
        case _:
            assert_never(start.mode)


def _lora(source: ExportSource) -> str:
    configs = source.lora.configs.items()
    return "; ".join(f"LoRA of the {name}, rank {one['r']}, alpha {one['lora_alpha']}" for name, one in configs)


def _figures(source: ExportSource, report: EvaluationReport | None) -> Iterator[str]:
    if report is None:
        yield "There is no report: the run was not evaluated."
        return
    if report.policy.step != source.manifest.step:
        yield f"The run's report is of step {report.policy.step}, and these weights are of step {source.manifest.step}."
        yield ""
    against = "against the initial model from the same seeds"
    drawn = f"{counted(report.num_prompts, 'held-out prompt')}, {counted(report.seeds_per_prompt, 'seed')} each"
    yield f"{drawn}, {against}: **{report.verdict.replace('_', ' ')}**."
    lines = [*report.rewards, *([report.prompt_following] if report.prompt_following else [])]
    if lines:
        yield from ("", "| reward | before | after | gain | interval | win rate |", "|---|---|---|---|---|---|")
        yield from map(_line, lines)


def _line(one: RewardComparison) -> str:
    low, high = one.gain_interval.low, one.gain_interval.high
    figures = f"{one.base_mean:.4g} | {one.policy_mean:.4g} | {one.gain:+.4g} | {low:+.4g} to {high:+.4g}"
    return f"| {_code(one.name)} | {figures} | {one.win_rate:.0%} |"


def _licence(source: ExportSource) -> str:
    start = source.spec.start
    from_lora = "" if start is None else f" and from the LoRA {_code(_last_part(lora_label(start.lora)))}"
    its = "its licence" if start is None else "their licences"
    return (
        f"These weights are derived from {_base(source.spec.model)}{from_lora} and stand under {its}, whose conditions pass to "
        "whoever uses or shares them. Attune adds none of its own, and has not looked whether the licence or the data allow "
        "what you mean to do."
    )


def _base(model: ModelSpec) -> str:
    match model:
        case HubSource(repo_id=repo_id, revision=revision):
            return f"[{repo_id}](https://huggingface.co/{repo_id}/tree/{revision}) at {revision[:12]}"
        case LocalSource(path=path) | SingleFileSource(path=path):
            return _code(_last_part(path))
        case _:
            return _code(label_of(model))


def _last_part(path: str) -> str:
    """Where a path leads, and not by which way: folders are the operator's."""
    return path.rstrip("/").rpartition("/")[2]


def _code(text: str) -> str:
    """As inline code on one line, whatever is in it; a bar would end a table's cell."""
    plain = " ".join(text.split()).replace("|", "\N{BROKEN BAR}").replace("`", "'")
    return f"`{plain}`"
