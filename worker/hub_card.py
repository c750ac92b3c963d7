"""The model card of a repository: that of the export, with where it is loaded from, and the job's pictures in it. Pure."""

from collections.abc import Sequence

from alignment_core.spec.exports import ExportFormat

PLACEHOLDER = '"FOLDER"'  # in the card of an export
LICENCE = "## Licence"


def card_for_hub(
    card: str, repo_id: str, branch: str, format: ExportFormat, pictures: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """`pictures` are paths in the repository with the prompts that were drawn."""
    loading = _loading(repo_id, branch, format)
    added = [*([f"## Load\n\n{loading}"] if loading else []), *([_shown(pictures)] if pictures else [])]
    head, mark, tail = card.replace(PLACEHOLDER, f'"{repo_id}"').partition(LICENCE)
    return "\n\n".join([head.rstrip(), *added, mark + tail])


def _loading(repo_id: str, branch: str, format: ExportFormat) -> str | None:
    revision = "" if branch == "main" else f', revision="{branch}"'
    match format:
        case "diffusers":
            line = f'pipeline.load_lora_weights("{repo_id}"{revision})  # pipeline: that of the base model'
        case "merged":
            line = f'pipeline = DiffusionPipeline.from_pretrained("{repo_id}"{revision})'
        case _:
            return None
    return f"```python\nfrom diffusers import DiffusionPipeline\n\n{line}\n```"


def _shown(pictures: Sequence[tuple[str, Sequence[str]]]) -> str:
    parts = ["## Pictures", "Base and aligned model, same prompts, same seeds."]
    for path, prompts in pictures:
        parts += [f"![samples]({path})", "\n".join(f"1. {_code(prompt)}" for prompt in prompts)]
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """As inline code on one line, whatever users wrote."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
