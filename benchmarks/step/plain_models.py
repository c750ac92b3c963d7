"""What the families of models differ in, as diffusers' scripts have them: how captions are read, the denoiser's call, the path.

Nothing of Attune is imported here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn

ZEROS_OF_T5 = 256  # what diffusers puts in the place of a T5 that is left out
Kind = Literal["sd", "sdxl", "sd3"]
KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
}


@dataclass(frozen=True)
class Text:
    """What the denoiser is told: words `[B, L, D]`, and in the larger families a pooled embedding and SDXL's sizes."""

    parts: dict[str, Tensor]

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Text":
        return Text({name: change(value) for name, value in self.parts.items()})

    def __getitem__(self, rows: Any) -> "Text":
        return self.changed(lambda value: value[rows])

    def repeat(self, num: int) -> "Text":
        return self.changed(lambda value: torch.cat([value] * num))

    def detach(self) -> "Text":
        return self.changed(Tensor.detach)

    def after(self, empty: "Text") -> "Text":
        """The empty caption for each of these, and then these."""
        parts = self.parts.items()
        return Text({name: torch.cat([empty.parts[name].expand_as(value), value]) for name, value in parts})


class PlainModel:
    """The parts of a diffusers folder, frozen and in float32."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        kind = KINDS[json.loads((folder / "model_index.json").read_text())["_class_name"]]
        without: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}
        pipeline: Any = DiffusionPipeline.from_pretrained(folder, **without)
        self.kind: Kind = kind
        self.device = device
        self.pipeline = pipeline
        suffixes = [""] if self.kind == "sd" else ["", "_2"]
        self.tokenizers = [getattr(pipeline, f"tokenizer{suffix}") for suffix in suffixes]
        self.text_encoders = [_frozen(getattr(pipeline, f"text_encoder{suffix}"), device) for suffix in suffixes]
        self.vae = _frozen(pipeline.vae, device)
        self.denoiser = _frozen(pipeline.transformer if self.kind == "sd3" else pipeline.unet, device)
        is_flow = self.kind == "sd3"
        self.scheduler: Any = pipeline.scheduler if is_flow else DDPMScheduler.from_config(pipeline.scheduler.config)

    def read(self, captions: Sequence[str]) -> Text:
        """By every text encoder."""
        read = [self._read(place, captions) for place in range(len(self.text_encoders))]
        match self.kind:
            case "sd":
                return Text({"words": read[0][0]})
            case "sdxl":
                kept = torch.tensor([[float(caption != "")] for caption in captions], device=self.device)
                words = torch.cat([states.hidden_states[-2] for states in read], dim=-1)
                return Text({"words": words * kept[:, None], "pooled": read[1].text_embeds * kept})
            case "sd3":
                words = torch.cat([states.hidden_states[-2] for states in read], dim=-1)
                words = F.pad(words, (0, self.denoiser.config.joint_attention_dim - words.shape[-1], 0, ZEROS_OF_T5))
                return Text({"words": words, "pooled": torch.cat([states.text_embeds for states in read], dim=-1)})
            case _:
                assert_never(self.kind)

    def _read(self, place: int, captions: Sequence[str]) -> Any:
        tokenizer = self.tokenizers[place]
        tokens = tokenizer(
            list(captions),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoders[place](tokens.input_ids.to(self.device), output_hidden_states=self.kind != "sd")

    def sized(self, text: Text, side: int, resolution: int) -> Text:
        """With SDXL's sizes of images whose files are `side` pixels high and wide, of which nothing was cut off."""
        if self.kind != "sdxl":
            return text
        ids = torch.tensor([[side, side, 0, 0, resolution, resolution]], device=self.device)
        return Text({**text.parts, "sizes": ids.expand(len(text.parts["words"]), -1)})

    def predict(self, network: nn.Module, x_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """`t` is a timestep of the schedule, or a place in the table of noise levels."""
        parts = text.parts
        match self.kind:
            case "sd":
                return network(x_t, t, parts["words"]).sample
            case "sdxl":
                added = {"text_embeds": parts["pooled"], "time_ids": parts["sizes"]}
                return network(x_t, t, parts["words"], added_cond_kwargs=added).sample
            case "sd3":
                time = self._level(t) * len(self.scheduler.timesteps)
                return network(x_t, parts["words"], parts["pooled"], time).sample
            case _:
                assert_never(self.kind)

    def noisy(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if self.kind != "sd3":
            return self.scheduler.add_noise(x_0, eps, t)
        s = self._level(t).reshape(-1, 1, 1, 1)
        return (1 - s) * x_0 + s * eps

    def target(self, x_0: Tensor, eps: Tensor) -> Tensor:
        return eps - x_0 if self.kind == "sd3" else eps

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.vae.encode(pixels).latent_dist
        return found.mean, found.std

    def to_latents(self, z: Tensor) -> Tensor:
        return (z - (self.vae.config.shift_factor or 0)) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images in [0, 1]."""
        z = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0)
        return (self.vae.decode(z).sample / 2 + 0.5).clamp(0, 1)

    def _level(self, t: Tensor) -> Tensor:
        """The noise level of a place in the table, the cleanest first."""
        num = self.scheduler.config.num_train_timesteps
        return self.scheduler.sigmas[:num].flip(0).to(t.device)[t]


def _frozen(network: Any, device: torch.device) -> Any:
    """On the device and without gradients; the libraries' own types say little of what their networks answer."""
    return network.requires_grad_(False).to(device)
