"""Which layout the columns of a table make, by their names, by a published schema, or as somebody wrote down.

Everything becomes one thing: a name of a column for each role of a layout. A published schema is only such a mapping that is
known beforehand.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alignment_core.datasets.layouts import CHOSEN_AND_REJECTED, FIRST_AND_SECOND
from alignment_core.datasets.ranked import RANKED_LISTS, RANKED_ROWS
from alignment_core.datasets.rows import DatasetFormat
from alignment_core.datasets.tables import Layout, Table
from alignment_core.datasets.unpaired import JUDGED_IMAGES
from alignment_core.errors import DataError

LAYOUTS: tuple[Layout[Any], ...] = (
    CHOSEN_AND_REJECTED,
    FIRST_AND_SECOND,
    RANKED_LISTS,
    RANKED_ROWS,
    JUDGED_IMAGES,
)
ROLES = frozenset(role for layout in LAYOUTS for role in layout.roles)


@dataclass(frozen=True)
class Schema:
    """A published data set's columns by role. It is told by the columns of `signature`, or by those of `names` if empty."""

    format: DatasetFormat
    names: Mapping[str, str]
    signature: frozenset[str] = field(default_factory=frozenset)

    @property
    def told_by(self) -> frozenset[str]:
        return self.signature or frozenset(self.names.values())


# Sources of each are named in docs/data.md.
SCHEMAS = (
    Schema(
        "pick_a_pic",
        {
            "prompt": "caption",
            "image_0": "jpg_0",
            "image_1": "jpg_1",
            "label_0": "label_0",
            "label_1": "label_1",
            "has_label": "has_label",
            "are_different": "are_different",
        },
        frozenset({"caption", "jpg_0", "jpg_1", "label_0"}),
    ),
    Schema(
        "rapidata",
        {
            "prompt": "prompt",
            "image_0": "image1",
            "image_1": "image2",
            "votes_0": "weighted_results_image1_preference",
            "votes_1": "weighted_results_image2_preference",
        },
    ),
    Schema(
        "hpdv3",
        {"prompt": "prompt", "chosen": "path1", "rejected": "path2"},
        frozenset({"prompt", "path1", "path2", "model1", "model2"}),
    ),
    Schema("hpdv2", {"prompt": "prompt", "images": "file_path", "preferences": "human_preference"}),
    Schema("hpdv2", {"prompt": "prompt", "images": "image_path", "preferences": "human_preference"}),
    Schema(
        "hpdv2",
        {"prompt": "prompt", "images": "image_path", "ranks": "rank"},
        frozenset({"prompt", "image_path", "rank", "raw_annotations"}),
    ),
    *(
        Schema(
            "image_reward_db",
            {"prompt": "prompt", "image": image, "rank": "rank", "group_id": "prompt_id"},
            frozenset({"prompt", "prompt_id", image, "rank"}),
        )
        for image in ("image_path", "image")
    ),
)


@dataclass(frozen=True)
class Reading:
    """How a table is read: a layout, the name of a column for each of its roles, and what to call it all."""

    layout: Layout[Any]
    names: Mapping[str, str]
    format: DatasetFormat
    are_others_known: bool = False


def choose_reading(
    table: Table, mapping: Mapping[str, str] | None, kind: Literal["pairs", "unpaired"] | None = None
) -> Reading:
    """The layout that the columns make, among those of `kind`; raises `DataError` naming what was found and expected."""
    found = table.columns
    if not found:  # no row at all, which the report on the rows says best
        names = {role: role for role in CHOSEN_AND_REJECTED.roles}
        return Reading(CHOSEN_AND_REJECTED, names, table.form, are_others_known=True)
    if mapping:
        return _mapped(table, found, mapping, kind)
    for schema in SCHEMAS:
        if schema.told_by <= set(found):
            names = {role: name for role, name in schema.names.items() if name in found}
            return Reading(_fitting(table, names, kind), names, schema.format, are_others_known=True)
    names = _own_names(table, found)
    form: DatasetFormat = "image_folder" if table.metadata_file else table.form
    return Reading(_fitting(table, names, kind), names, form)


def _mapped(
    table: Table, found: Sequence[str], mapping: Mapping[str, str], kind: Literal["pairs", "unpaired"] | None
) -> Reading:
    mapping = {"winner" if role == "preferred" else role: name for role, name in mapping.items()}
    known = _own_names(table, found)
    for role, name in mapping.items():
        if role not in ROLES:
            raise DataError(
                "unknown_role", f"columns: no role {role!r}{_meant(role, ROLES)}; there are {_listed(ROLES)}"
            )
        if name not in found and known.get(name) is None:
            message = (
                f"{table.path.name}: no column {name!r} (columns.{role}){_meant(name, found)}; found {_listed(found)}"
            )
            raise DataError("missing_column", message)
    taken = set(mapping.values())
    rest = {role: name for role, name in known.items() if name not in taken and role not in mapping}
    given = {role: name if name in found else known[name] for role, name in mapping.items()}
    names = _without_rivals({**rest, **given}, given)
    return Reading(_fitting(table, names, kind), names, table.form, are_others_known=True)


def _without_rivals(names: dict[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What was written down decides: a column that happens to be called `chosen` says nothing beside a mapped `image_0`."""
    rivals = ({"chosen", "rejected"}, {"image_0", "image_1"}, {"image"}, {"images"})
    mapped = [one for one in rivals if one & given.keys()]
    dropped = {role for one in rivals if mapped and one not in mapped for role in one if role not in given}
    stated = [set(one) for one in FIRST_AND_SECOND.preferences if set(one) <= given.keys()]
    for one in FIRST_AND_SECOND.preferences:
        if stated and set(one) not in stated:
            dropped |= set(one) - given.keys()
    return {role: name for role, name in names.items() if role not in dropped}


def _own_names(table: Table, found: Sequence[str]) -> dict[str, str]:
    """Columns that are called what they are. In an ImageFolder `x_file_name` is the image `x`, and `file_name` is `image`."""
    names = {name: name for name in found if name in ROLES}
    if "preferred" in found and "winner" not in found:
        names["winner"] = "preferred"
    if table.metadata_file:
        for name in found:
            if name == "file_name" or name.endswith("_file_name"):
                names[name.removesuffix("file_name").removesuffix("_") or "image"] = name
    return names


def _fitting(table: Table, names: Mapping[str, str], kind: Literal["pairs", "unpaired"] | None) -> Layout[Any]:
    possible = [layout for layout in LAYOUTS if kind in (None, layout.kind)]
    fitting = [layout for layout in possible if not layout.missing(set(names))]
    # A dataset of pairs may have an `image` beside them; single images have nothing of a pair.
    if fitting:
        return fitting[0]
    closest = max(possible, key=lambda layout: _fit(layout, set(names)))
    raise _missing(table, closest, names)


def _fit(layout: Layout[Any], roles: set[str]) -> tuple[int, int]:
    return len(roles & set(layout.images)), len(roles & {*layout.required, *layout.optional}) - len(
        layout.missing(roles)
    )


def _missing(table: Table, layout: Layout[Any], names: Mapping[str, str]) -> DataError:
    missing = layout.missing(set(names))
    free = [column for column in table.columns if column not in names.values()]
    expected = sorted(names.get(role, role) for role in (*layout.images, *layout.required))
    if layout.preferences:
        expected.append("and " + " or ".join("+".join(one) for one in layout.preferences))
    meant = "".join(_meant(role, free) for role in missing)
    return DataError(
        "missing_column",
        f"{table.path.name}: no column {', '.join(missing)}{meant}; expected {', '.join(expected)}; "
        f"found {_listed(table.columns)}",
        hint='Say which column is what with columns, such as {"prompt": "caption", "chosen": "image_a"}; see docs/data.md.',
    )


OTHER_WORDS = {"prompt": ("caption", "text", "description"), "winner": ("better", "preference", "best", "choice")}


def _meant(name: str, among: Sequence[str] | frozenset[str]) -> str:
    close = difflib.get_close_matches(name, sorted(among), n=1, cutoff=0.7)
    close += [word for word in OTHER_WORDS.get(name, ()) if word in among]
    return f" (did you mean {close[0]!r}?)" if close else ""


MOST_LISTED = 40


def _listed(names: Sequence[str] | frozenset[str]) -> str:
    shown = [name[:60] for name in sorted(names)[:MOST_LISTED]]
    return (", ".join(shown) or "none") + (f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else "")
