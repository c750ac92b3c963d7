"""What a form for a new job sent, in either of its two views, and how it is laid out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.web.offers import Known, offers_of
from service.web.spec_control import Control
from service.web.spec_form import controls_of, typed_as
from service.web.spec_schema import SET, filled, spec_schema
from service.web.spec_typed import spec_of

# What most people set, in this order; all else is folded. A method's own required fields are among them.
COMMON = (
    ("model",),
    ("training", "steps"),
    ("training", "learning_rate"),
    ("training", "batch_size"),
    ("adapter", "rank"),
    ("evaluation", "rewards"),
    ("evaluation", "prompts"),
    ("seed",),
)
ORDER = (
    "method",
    "adapter",
    "training",
    "evaluation",
    "reference",
    "timesteps",
    "guards",
    "checkpoints",
    "resources",
    "start",
)
LONGEST_NAME = 200


@dataclass(frozen=True)
class Asked:
    """A spec, and what was asked of it; `text` is the JSON as it was typed, where it was, and `kept` by their names the lines in place of
    which a prompt set is chosen."""

    spec: dict[str, Any]
    view: str = "form"
    text: str = ""
    name: str = ""
    resume_from: str = ""
    action: str = "check"
    preset: str = ""
    csrf: str = ""
    once: str = ""
    earlier_method: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
    problem: dict[str, str] | None = None

    @property
    def method(self) -> str:
        """Which method the spec names, if it can be read."""
        method = self.spec.get("method")
        found = method.get("type") if isinstance(method, Mapping) else method
        return found if isinstance(found, str) else ""

    @property
    def has_new_method(self) -> bool:
        return self.earlier_method not in ("", self.method)

    @property
    def written(self) -> str:
        """The JSON as it was typed, or as the form makes it."""
        return self.text or json.dumps(self.spec, indent=2, ensure_ascii=False)

    def with_spec(self, spec: Mapping[str, Any]) -> "Asked":
        return replace(self, spec=dict(spec), text=self.text if spec == self.spec else "")

    def as_json(self) -> "Asked":
        return replace(self, view="json")

    def body(self) -> dict[str, Any]:
        """Of `POST /v1/jobs`."""
        more = {"name": self.name} if self.name else {}
        return {
            "spec": self.spec,
            **more,
            **({"resume_from": {"checkpoint_id": self.resume_from}} if self.resume_from else {}),
        }


def reading_of(typed: Mapping[str, str]) -> Asked:
    """What the fields of a form say. Without `view` a `spec` is JSON; `show` is the view to answer with."""
    is_json = typed.get("view", "json" if "spec" in typed else "form") == "json"
    asked = Asked(
        {},
        view=typed.get("show") or ("json" if is_json else "form"),
        text=typed.get("spec", "").replace("\r\n", "\n") if is_json else "",
        name=typed.get("name", "")[:LONGEST_NAME],
        resume_from=typed.get("resume_from", ""),
        action=typed.get("action", "check"),
        preset=typed.get("preset", ""),
        csrf=typed.get("csrf", ""),
        once="".join(re.findall("^[0-9a-f]{1,64}$", typed.get("once", ""))),
    )
    if not is_json:
        return replace(asked, spec=spec_of(typed), earlier_method=typed.get("f.method._was", ""), kept=_kept(typed))
    try:
        spec = json.loads(asked.text)
    except (ValueError, RecursionError) as error:
        return replace(asked, view="json", problem=_not_json(f"the spec is not JSON: {error}"))
    if not isinstance(spec, dict):
        return replace(asked, view="json", problem=_not_json("the spec is not a JSON object"))
    return replace(asked, spec=spec)


def _kept(typed: Mapping[str, str]) -> dict[str, str]:
    chosen = [name.removesuffix(f".{SET}") for name, value in typed.items() if name.endswith(f".{SET}") and value]
    return {name: typed[name].replace("\r\n", "\n") for name in chosen if name in typed}


def _not_json(message: str) -> dict[str, str]:
    return {"pointer": "", "code": "json_invalid", "message": message}


@dataclass(frozen=True)
class JobForm:
    """The controls: those that most people set, and groups of the rest. `can_show` is false for a spec that has what no control holds."""

    common: Sequence[Control] = ()
    groups: Sequence[Control] = ()
    open: frozenset[str] = field(default_factory=frozenset)
    can_show: bool = True


def parts_of_form(asked: Asked, known: Known, errors: Sequence[str]) -> JobForm:
    """The form of the spec; groups with one of the `errors`, which are pointers, are open."""
    if asked.view == "json":
        return JobForm()
    controls = controls_of(asked.spec, offers_of(asked.spec, known))
    if not _shows_all(asked.spec, controls):
        return JobForm(can_show=False)
    controls = [_with_kept(one, asked.kept) for one in controls]
    by_path = {one.path: one for one in _all(controls)}
    of_method = [one for one in by_path.get(("method",), Control((), "group")).children if one.is_required]
    common = [by_path[path] for path in COMMON if path in by_path]
    common[1:1] = of_method
    taken = {one.path for one in common}
    groups = sorted((_without(one, taken) for one in controls if one.path not in taken), key=_place)
    return JobForm(common, groups, frozenset(one.id for one in _all(groups) if _holds(one, errors)))


def lean(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same job with its defaults left out, where the controls can show it."""
    controls = controls_of(spec, {})
    return spec_of(typed_as(controls)) if _shows_all(spec, controls) else dict(spec)


def _shows_all(spec: Mapping[str, Any], controls: Sequence[Control]) -> bool:
    """Whether the controls make the same spec again."""
    schema = spec_schema()
    return filled(schema, spec_of(typed_as(controls))) == filled(schema, spec)


def _all(controls: Sequence[Control]) -> list[Control]:
    return [found for one in controls for found in (one, *_all(one.children))]


def _with_kept(control: Control, kept: Mapping[str, str]) -> Control:
    children = [_with_kept(one, kept) for one in control.children]
    return replace(control, children=children, value=kept.get(control.name, "") if control.picked else control.value)


def _without(control: Control, taken: set[tuple[str, ...]]) -> Control:
    children = [_without(one, taken) for one in control.children if one.path not in taken]
    return replace(control, children=children)


def _place(control: Control) -> int:
    return ORDER.index(control.path[0]) if control.path[0] in ORDER else len(ORDER)


def _holds(control: Control, pointers: Sequence[str]) -> bool:
    return any(one == control.pointer or one.startswith(f"{control.pointer}/") for one in pointers)
