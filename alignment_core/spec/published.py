"""What a family's published runs have where that differs between families: a value far from it is warned of by its name.

Pure data. docs/methods.md, "Defaults by family", has the same table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from alignment_core.spec.families import FAMILIES, FamilyName
from alignment_core.spec.job import JobSpec

FAR = 2.0  # times the highest published value, or that part of the lowest


@dataclass(frozen=True)
class Published:
    """From `low` to `high`; of the method `of` alone, where it is set, since a beta is no other method's."""

    low: float
    high: float
    source: str
    of: str | None = None


_OF_FLOW = {
    "method.beta": Published(
        100,
        2000,
        "flow_grpo's Diffusion-DPO of SD 3.5 has 100, and its author advises 2000 where training spikes",
        of="diffusion_dpo",
    ),
    "method.eta": Published(0.7, 0.7, "Flow-GRPO, whose a it is, has 0.7"),
}
_FLUX_GUIDANCE = Published(
    3.5, 3.5, "FLUX.1 dev is told its guidance and is drawn and trained at 3.5; schnell is not told"
)
PUBLISHED: Mapping[FamilyName, Mapping[str, Published]] = MappingProxyType(
    {
        "sd": {},
        "sdxl": {},
        "sd3": _OF_FLOW,
        "flux": {
            **_OF_FLOW,
            "method.guidance_scale": _FLUX_GUIDANCE,
            "evaluation.guidance_scale": _FLUX_GUIDANCE,
            "training.embedded_guidance": _FLUX_GUIDANCE,
        },
    }
)


def far_from_published(spec: JobSpec, family: FamilyName) -> Iterator[str]:
    """A sentence for each value, given or by default, that is far from what the family was published with."""
    for field, published in PUBLISHED[family].items():
        section, name = field.split(".")
        value = getattr(getattr(spec, section), name, None)
        if value is None or published.of not in (None, spec.method.type):
            continue
        if not published.low / FAR <= value <= published.high * FAR:
            yield f"{field} is {value:g}, which is far from what {FAMILIES[family].title} was published with: {published.source}"
