"""Which column of a table, or which key of an object, holds the prompts."""

from alignment_core.prompt_files.results import refused

COLUMNS = ("prompt", "caption", "text", "prompts", "captions")  # looked for in this order, in any case of letters


def column_among(names: list[str], wanted: str | None) -> str:
    """The column that was named, or the first of the usual names."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise refused("column_unknown", f"there is no column {wanted!r} of text; there are {_shown(names)}")
    by_name = {name.strip().lower(): name for name in reversed(names)}
    for usual in COLUMNS:
        if usual in by_name:
            return by_name[usual]
    if not names:
        raise refused("column_unknown", "there is no column of text in it")
    raise refused("column_unknown", f"which column holds the prompts? Say one of {_shown(names)}")


def _shown(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:20]) or "none"
