"""Preference pairs as training reads them: posteriors of both images, the prompt's conditioning, the label.

`PreferencePairs.prepare` encodes what is not yet in the cache, with progress; `batch` then reads by index. Without random
transforms the VAE's posteriors (mean and standard deviation, not a draw) come from the cache; with them, images are
encoded at every visit. Text is cached in both cases, since the text encoder is frozen.

What is cached is always read back from the cache, so a first and a second run see the same bits.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.encoding import ImageConditioning, Latents, told_nothing
from alignment_core.datasets.posteriors import CachedPosteriors, FreshPosteriors, Posteriors
from alignment_core.datasets.preparation import Preparation, prepare
from alignment_core.datasets.rows import Annotation, PreferenceSource
from alignment_core.events import PhaseProgressed, WarningRaised


@dataclass(frozen=True)
class PairTensors:
    """A batch of pairs on the CPU. Posteriors are float32 `[B, C, h, w]`, exactly as the encoder gave them.

    `conditioning` is what the text encoder gave for the prompts, by name, `[B, ...]`; what a denoiser is told of either image
    beside it is in `chosen_conditioning` and `rejected_conditioning`. `label` is `[B]` in [0.5, 1].
    """

    chosen_mean: Latents
    chosen_std: Latents
    rejected_mean: Latents
    rejected_std: Latents
    conditioning: dict[str, Tensor]
    label: Float[Tensor, " batch"]
    chosen_conditioning: dict[str, Tensor] = field(default_factory=dict)
    rejected_conditioning: dict[str, Tensor] = field(default_factory=dict)


class PreferencePairs:
    """Pairs by index; made by `prepare`."""

    def __init__(
        self,
        rows: Sequence[Annotation],
        posteriors: Posteriors,
        text: ShardReader,
        prompts: Places,
        empty_prompt: Places,
        image_conditioning: ImageConditioning = told_nothing,
    ) -> None:
        self.prompts: list[str] = [row.prompt for row in rows]
        self.labels: Float[Tensor, " pairs"] = torch.tensor([row.label for row in rows], dtype=torch.float32)
        self.empty_conditioning: dict[str, Tensor] = text.read(empty_prompt)
        self._posteriors = posteriors
        self._text = text
        self._prompt_places = prompts
        self._image_conditioning = image_conditioning

    @classmethod
    def prepare(
        cls,
        source: PreferenceSource,
        rows: Sequence[Annotation],
        how: Preparation,
        *,
        joint: bool,
    ) -> Generator[PhaseProgressed | WarningRaised, None, "PreferencePairs"]:
        """Fill the cache for `rows` (ascending, from `rows.read_annotations` or `splits.split_by_group`).

        `joint`: crop and flip are drawn once a pair instead of once an image. Use `pairs = yield from prepare(...)`.
        Raises `DataError` for an image that cannot be decoded, naming its row.
        """
        found = yield from prepare(source, rows, how, num_images=2, is_seekable=source.is_seekable)
        if found.images is not None:
            posteriors = CachedPosteriors(found.images, *found.places)
        else:
            posteriors = FreshPosteriors(
                found.reader,
                found.rows,
                how.encode_images,
                how.resolution,
                how.crop,
                how.horizontal_flip,
                joint,
                how.batch_size,
            )
        return cls(found.rows, posteriors, found.text, found.prompts, found.empty_prompt, how.image_conditioning)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_winners(self) -> int:
        return len(self)

    def winners(
        self, indices: Sequence[int], draws: Sequence[torch.Generator]
    ) -> tuple[Latents, Latents, dict[str, Tensor]]:
        """See `drift.Winners`: the chosen images."""
        pairs = self.batch(indices, draws)
        return pairs.chosen_mean, pairs.chosen_std, {**pairs.conditioning, **pairs.chosen_conditioning}

    @property
    def are_cached(self) -> bool:
        """Whether batches are read alone, and nothing is encoded for them: so that a thread may read them ahead."""
        return isinstance(self._posteriors, CachedPosteriors)

    @property
    def looks_ahead(self) -> bool:
        """Whether it helps to `foresee`: what was encoded does not stay on this disk."""
        return self._text.is_bounded

    def foresee(self, indices: Sequence[int]) -> None:
        """`batch` is asked for these next, after those foreseen before: what of them is not here comes meanwhile."""
        self._posteriors.foresee(indices)
        self._text.foresee(self._prompt_places[list(indices)])

    def batch(self, indices: Sequence[int] | Tensor, draws: Sequence[torch.Generator] | None = None) -> PairTensors:
        """The pairs at `indices`. `draws`, one generator a pair, is needed by random transforms and read by them alone."""
        chosen = [int(index) for index in indices]
        if not chosen:
            raise ValueError("a batch needs at least one pair")
        posteriors = self._posteriors.read(chosen, draws)
        return PairTensors(
            chosen_mean=posteriors.chosen_mean,
            chosen_std=posteriors.chosen_std,
            rejected_mean=posteriors.rejected_mean,
            rejected_std=posteriors.rejected_std,
            conditioning=self._text.read(self._prompt_places[chosen]),
            label=self.labels[chosen],
            chosen_conditioning=self._image_conditioning(posteriors.chosen_frame),
            rejected_conditioning=self._image_conditioning(posteriors.rejected_frame),
        )
