"""What is trained, by how many steps, what is saved and where it runs, as frozen data; re-exported by `spec`."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.sources import WITHOUT_NUL
from alignment_core.spec.unions import OneOf

MODULE = r"^[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*$"
ModuleName = Annotated[str, StringConstraints(max_length=200, pattern=MODULE)]


class TextEncoderLora(Spec):
    """Low-rank adapters on the text encoders too, as by `--train_text_encoder` of diffusers' LoRA scripts.

    All text encoders of the model have them. For SD 1.x, SD 2.x and SDXL; other families refuse it.
    """

    rank: int | None = Field(default=None, ge=1, le=1024, description="That of the denoiser's adapter when left out.")
    alpha: float | None = Field(
        default=None, gt=0, description="LoRA scale numerator; the rank when left out, so the scale is 1."
    )
    target_modules: tuple[ModuleName, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "out_proj"),
        min_length=1,
        max_length=256,
        description="Suffixes of module names in the text encoders. The default is that of diffusers' LoRA scripts.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of the text encoders, under the schedule of `training`; `training.learning_rate` when left out.",
    )

    def resolved(self, rank: int) -> "TextEncoderLora":
        """The same with what depends on the denoiser's rank written out."""
        own = rank if self.rank is None else self.rank
        return self.model_copy(update={"rank": own, "alpha": float(own) if self.alpha is None else self.alpha})


class LoraAdapter(Spec):
    """Low-rank adapters on layers of the denoiser (peft), and on the text encoders if asked for."""

    type: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=1024, description="diffusers' Diffusion-DPO LoRA scripts: 8.")
    alpha: float | None = Field(
        default=None, gt=0, description="LoRA scale numerator; the rank when left out, so the scale is 1."
    )
    target_modules: tuple[ModuleName, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Suffixes of module names in the denoiser: the last parts of a name with dots. When left out, those of the "
        "model's family (`docs/methods.md`, defaults by family): the projections of attention for Stable Diffusion 1.x, 2.x and XL.",
    )
    text_encoder: TextEncoderLora | None = Field(
        default=None,
        description="Train the text encoders too; they stay as they are when left out. `{}` takes the defaults.",
    )

    def resolved(self) -> "LoraAdapter":
        """The same with what depends on the rank written out; the layers of the denoiser depend on its family."""
        text = None if self.text_encoder is None else self.text_encoder.resolved(self.rank)
        alpha = float(self.rank) if self.alpha is None else self.alpha
        return self.model_copy(update={"alpha": alpha, "text_encoder": text})

    @property
    def highest_rank(self) -> int:
        """Of all adapters that are trained."""
        return max(self.rank, 0 if self.text_encoder is None else self.text_encoder.rank or 0)


TRAINING_GUIDANCE = 3.5

Precision = Literal["fp32", "bf16", "fp16"]


class FullFineTune(Spec):
    """Every weight of the denoiser is trained; the reference is a frozen second copy."""

    type: Literal["full"] = "full"


AdapterSpec = Annotated[LoraAdapter | FullFineTune, OneOf()]


def trains_text_encoders(adapter: LoraAdapter | FullFineTune) -> bool:
    """Whether the text encoders are trained beside the denoiser."""
    return isinstance(adapter, LoraAdapter) and adapter.text_encoder is not None


class ReferenceCache(Spec):
    """The errors of a reference that never moves are computed once a draw, and not at every visit.

    An example is then seen at `draws` draws of noise, timestep and dropped caption of its own, which epochs take in turn, where
    it is otherwise drawn anew at each visit. At those draws the numbers are the same, bit for bit.
    """

    draws: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Draws of each example. The reference runs in the first `draws` epochs and in none after them.",
    )


class BlockShuffle(Spec):
    """Preference data is visited block by block, so that little of what was encoded of it need lie on the disk at a time.

    Blocks of neighbouring rows begin in an order that every epoch draws anew, and the examples of `blocks` of them are mixed. Every
    example is still visited once an epoch. The order follows from the seed and the data alone: not from shards, disk or processes.
    """

    rows: int = Field(default=512, ge=1, le=1_000_000, description="Neighbouring examples in a block.")
    blocks: int = Field(
        default=16,
        ge=2,
        le=100_000,
        description="Blocks whose examples are mixed at a time. Where so many hold all of the data, it is shuffled as without blocks.",
    )


class TrainingSpec(Spec):
    """The optimiser and its schedule. The learning rate is the effective one: nothing scales it behind the scenes."""

    steps: int = Field(default=2000, ge=1, le=1_000_000, description="Optimiser steps.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Examples (pairs, prompts or transitions: `docs/methods.md`) in one forward pass on one device. 4 when left "
        "out; 8 for Diffusion-KTO, whose baseline needs as many.",
    )
    gradient_accumulation_steps: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="Forward passes in one optimiser step. 16 when left out, 8 for Diffusion-KTO; fewer where an iteration of "
        "an online method does not divide by that, and where several processes train, which share them.",
    )
    micro_batch: Literal["given", "auto"] = Field(
        default="given",
        description="`given`: `batch_size` examples in a forward pass. `auto`, for methods that learn from pairs: on a GPU the whole "
        "step, and half as many until they fit its memory; the effective batch and its draws stay.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="When left out, that of the method's published recipe (`docs/methods.md`, the table of defaults): 1e-5 for "
        "the LoRA of Diffusion-DPO, and for its full fine-tune 1e-8 times the effective batch.",
    )
    learning_rate_source: str | None = Field(
        default=None,
        max_length=300,
        pattern=WITHOUT_NUL,
        description="Where the learning rate comes from. Written by the service; what is sent is ignored.",
    )
    warmup_steps: int | None = Field(
        default=None,
        ge=0,
        description="Linear warm-up, in optimiser steps. When it is left out with the learning rate, the recipe's: 500 for full "
        "fine-tunes by Diffusion-DPO, 200 by Diffusion-KTO, at most a quarter of the run; else 0.",
    )
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    max_grad_norm: float = Field(default=1.0, gt=0, description="Clip threshold of the global gradient norm.")
    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = Field(
        default="adamw",
        description="`adamw` keeps 8 bytes of state a weight, `adamw_8bit` (bitsandbytes) 2, `adafactor` next to none. The learning "
        "rate of `adafactor` is relative to the size of each weight matrix, and has to be written.",
    )
    adam_beta1: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="How much of the mean of the gradients a step keeps (Adam, arXiv 1412.6980).",
    )
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="The same of the mean of their squares.")
    adam_epsilon: float = Field(
        default=1e-8, gt=0, description="Added to the root of that mean before the step is divided by it."
    )
    weight_decay: float = Field(
        default=1e-2,
        ge=0,
        description="The share of a weight that a step takes away, times the learning rate (AdamW, arXiv 1711.05101).",
    )
    precision: Literal["auto"] | Precision = Field(
        default="auto",
        description="Precision of the networks; errors and logits stay float32. `auto`: fp32 on a CPU, and on a GPU fp16 or bf16, "
        "whichever the model's predictions measure as more exact (`docs/precision.md`).",
    )
    vae_precision: Literal["auto", "fp32"] = Field(
        default="auto",
        description="Precision in which images are encoded. `auto`: fp32 on a CPU and in fp32 runs; in half-precision runs on a GPU the half "
        "precision whose latents err least, up to 8 times what rounding the pixels to 8 bits has moved them, and else fp32 "
        "(`docs/precision.md`).",
    )
    gradient_checkpointing: bool = False
    cuda_graphs: Literal["auto", "off"] = Field(
        default="off",
        description="`auto`: on a GPU, the networks' kernels are recorded once for each shape and replayed, those of rollouts too, which gives the "
        "same numbers: at small batches a GPU waits for the CPU that launches them. Not with "
        "resources.strategy fsdp2 or gradient_checkpointing, or where text encoders are trained.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="off",
        description="Compile the denoiser's repeated blocks for the training steps: another order of sums, so float32 differs by its "
        "rounding. `auto`: where it is expected to save more seconds than it takes, which the event `compiling_weighed` tells; `on`: "
        "whatever it takes. It needs a C++ compiler on a CPU and Triton on a GPU; without, a run warns and goes on. Not with fsdp2.",
    )
    embedded_guidance: float = Field(
        default=TRAINING_GUIDANCE,
        ge=0,
        description="What a network that is told its guidance (FLUX.1 dev) is told where nothing is drawn: in the forwards of "
        "methods on preference data. diffusers' FLUX scripts: 3.5.",
    )
    reference_cache: ReferenceCache | None = Field(
        default=None,
        description="Preference data and a frozen reference: remember the reference's errors, at a fixed number of draws an "
        "example. Off when left out: every visit draws anew.",
    )
    block_shuffle: BlockShuffle | None = Field(
        default=None,
        description="Preference data larger than the disk: visit it in blocks of neighbouring rows, of which some are mixed at a time, and read "
        "what was encoded about once an epoch. When left out, an epoch is shuffled as a whole (`docs/data.md`).",
    )
    start_checks: bool = Field(
        default=True,
        description="Before anything that takes long: one step, a checkpoint written and read, a picture and its rewards, all undone. The "
        "numbers of the run are the same without.",
    )
    validation_fraction: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of groups held out of training to validate on."
    )
    validate_every: int | None = Field(
        default=None, ge=1, description="Optimiser steps between validations; off when left out."
    )

    @model_validator(mode="after")
    def _the_rate_is_the_optimizers(self) -> Self:
        if self.optimizer == "adafactor" and self.learning_rate is None:
            raise misfit(
                "the recipes' learning rates are AdamW's; adafactor's is relative to the size of the weights: write "
                "training.learning_rate, for instance 1e-3",
                "learning_rate",
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise misfit(f"warmup_steps ({self.warmup_steps}) is larger than steps ({self.steps})", "warmup_steps")
        return self


class CheckpointSpec(Spec):
    """When training state is saved. The last step is always saved."""

    every: int = Field(default=500, ge=1, description="Optimiser steps between checkpoints.")
    keep_last: int = Field(
        default=3, ge=1, le=1000, description="Older checkpoints are removed from the work folder, except the best."
    )
    result: Literal["best", "last"] | None = Field(
        default=None,
        description="Which checkpoint the run ends with: `best`, that of the probe with the highest mean of the first "
        "evaluation reward, or `last`. When left out: `best` if `evaluation.every` is set.",
    )


Strategy = Literal["ddp", "fsdp2"]


class ResourceSpec(Spec):
    """What the run needs of a machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Processes that train together, each on a device of its own. A step's examples are "
        "training.batch_size x gradient_accumulation_steps of each. The worker starts them; a launcher of your own must start as "
        "many, or as many as it likes where this is left at 1.",
    )
    strategy: Strategy = Field(
        default="ddp",
        description="How several processes hold the model: `ddp` whole on each, or `fsdp2` in shares, which takes a fraction of the "
        "memory and sends every block's weights at every forward.",
    )
    num_cpu_threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of a run on a CPU; torch's choice when left out. Tiny models want 1.",
    )
    max_run_seconds: int | None = Field(
        default=None, ge=1, description="The run stops, saves and fails with `time_limit` after this long."
    )
