"""Policy, reference and initial denoiser over one set of base weights.

With LoRA the base weights are held once: adapter on is the policy, adapter off is the initial model, which is also the
frozen reference. With a full fine-tune the initial model is a frozen copy. A reference that moves is a third state, kept by
`reference_weights` and `reference_deltas`. Only these modules know how weights are shared. Where text encoders are trained too, the denoiser
is a `ReadingNetwork`, and all of this holds of that.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from alignment_core.actors.adapter_factors import Factors, keep_as_initial, set_factors
from alignment_core.actors.adapter_stores import AdapterStore, adapter_store
from alignment_core.actors.arithmetic import half_layers_in
from alignment_core.actors.compiled_blocks import Backend, CompiledSwitch, compile_blocks, lay_channels_last
from alignment_core.actors.forwards import DenoiserFamily, Forwards
from alignment_core.actors.lora_forward import AdapterSwitch
from alignment_core.actors.reading_network import Conditioning, Denoiser, ReadingNetwork, parts_of
from alignment_core.actors.reference_weights import (
    ADAPTER,
    INITIAL,
    FullWeights,
    ReferenceWeights,
    Shape,
    Weights,
    initial_adapter,
    lora_layers,
)
from alignment_core.actors.replay import Recorder
from alignment_core.actors.sharded_reference import ShardedFullWeights
from alignment_core.actors.sharding import average_gradients, gathered, load_whole, shard
from alignment_core.actors.working_copies import WorkingCopies, hold_in_half
from alignment_core.errors import CheckpointError
from alignment_core.shapes import Latents, Times
from alignment_core.shares import share_of


class Actors:
    """The networks of a run. All stay in eval mode, so that dropout can never tell policy and reference apart."""

    def __init__(
        self,
        family: DenoiserFamily,
        denoiser: Denoiser,
        *,
        initial_copy: ModelMixin | None,
        autocast: Callable[[], AbstractContextManager[object]],
        switch: AdapterSwitch | None = None,
    ) -> None:
        self.family = family
        self.denoiser = denoiser
        self.trained: nn.Module = denoiser  # becomes the distributed wrapper, when there is one
        self._initial_copy = initial_copy
        self._forwards = Forwards(family, autocast)
        self._switch = switch
        self._begun_with: str | None = None  # the adapter that the initial model has too
        self._store: ReferenceWeights | None = None
        self._reference: dict[str, Tensor] = {}
        self._offload_initial = False
        self.network_type = type(denoiser)  # that of a network in shares is another
        self._is_sharded = False
        self._averages_apart = False
        self._gathered: ModelMixin | None = None
        self._compiled: CompiledSwitch | None = None
        self._copies: WorkingCopies | None = None
        self._read_initial: Callable[[], Weights] | None = None

    @property
    def kind(self) -> Literal["lora", "full"]:
        """`lora` or `full`."""
        return "lora" if self._initial_copy is None else "full"

    def trainable(self) -> dict[str, nn.Parameter]:
        """The policy's trainable parameters by name, in a fixed order."""
        return {name: parameter for name, parameter in self.denoiser.named_parameters() if parameter.requires_grad}

    def trainable_parts(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """The same, those of the denoiser and those of text encoders, which follow them in that order."""
        own = next(iter(parts_of(self.denoiser)))
        everything = self.trainable()
        denoisers = {name: one for name, one in everything.items() if name.startswith(own)}
        return denoisers, {name: one for name, one in everything.items() if name not in denoisers}

    def num_base_parameters(self) -> int:
        """Parameters of what is trained, without those that an adapter adds."""
        return sum(p.numel() for name, p in self.denoiser.named_parameters() if ".lora_" not in name)

    @torch.no_grad()
    def begin_with(self, factors: Factors, *, is_initial: bool) -> None:
        """Give the adapter these factors, before it is trained; `is_initial`: the initial model has them too, for ever.

        Layers without factors begin as nothing.
        """
        set_factors(self.denoiser, ADAPTER, factors)
        if is_initial:
            keep_as_initial(self.denoiser)
            self._begun_with = INITIAL

    def freeze_a(self) -> None:
        """Train the B of the adapter alone; before there is an optimiser. Policy and reference then share one A."""
        for layer in lora_layers(self.denoiser).values():
            layer.lora_A[ADAPTER].requires_grad_(False)

    def predict_policy(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The policy's prediction, with gradients, float32."""
        network = self.trained if torch.is_grad_enabled() else self.denoiser  # the wrapper is for gradients
        return self._predict_again("policy", network, x_t, times, conditioning)

    def predict_drawing(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The policy's as a rollout draws with it, outside the distributed wrapper: that waits for gradients which no draw has."""
        return self._predict_again("policy", self.denoiser, x_t, times, conditioning)

    def predict_reference(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The reference's prediction, without gradients, float32."""
        if not self.reference_moves:
            return self.predict_initial(x_t, times, conditioning)
        with torch.no_grad():
            return self.predict_with(self._reference, x_t, times, conditioning)

    @torch.no_grad()
    def predict_initial(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The initial model's prediction, without gradients, float32."""
        with self.initial_denoiser() as denoiser:
            if self._offload_initial:  # what is recorded must stay where it is
                return self._forwards.predict(denoiser, x_t, times, conditioning)
            return self._predict_again("initial", denoiser, x_t, times, conditioning)

    def _predict_again(
        self,
        of: Literal["policy", "initial"],
        network: nn.Module,
        x_t: Latents,
        times: Times,
        conditioning: dict[str, Tensor],
    ) -> Latents:
        is_compiled = self._compiled is not None and self._compiled.is_on  # what runs plainly is another recording
        name = f"{of}, compiled" if is_compiled else of
        return self._forwards.predict_again(name, network, x_t, times, conditioning, is_trained=of == "policy")

    @torch.no_grad()
    def read_by_initial(self, conditioning: Conditioning) -> Conditioning:
        """The conditioning with what the initial model's text encoders say of the prompts, where it holds their tokens alone."""
        if not isinstance(self.denoiser, ReadingNetwork):
            return conditioning
        with self.initial_denoiser(), self._forwards.autocast():
            return self.denoiser.read(conditioning)

    @contextmanager
    def initial_denoiser(self) -> Iterator[Denoiser]:
        """The model the run started from; with LoRA the adapter is off inside and on again after, whatever happens.

        An adapter that began as a LoRA of others, which the initial model has too, is what it began as inside.
        """
        if self._initial_copy is not None:
            if not self._offload_initial:
                yield self._initial_copy
                return
            try:
                nn.Module.to(self._initial_copy, self.family.device)
                yield self._initial_copy
            finally:
                nn.Module.to(self._initial_copy, "cpu")
            return
        with initial_adapter(self.denoiser) if self._switch is None else self._switch.turned_to(self._begun_with):
            yield self.denoiser

    def on_host(self) -> "Actors":
        """A full fine-tune's policy as it is now, its weights copied to the host's memory: what a checkpoint is written from.

        Of weights in shares it is what was `gathered`.
        """
        policy = self._copied() if self._gathered is None else self._gathered
        return Actors(self.family, policy, initial_copy=policy, autocast=self._forwards.autocast)

    def _copied(self) -> ModelMixin:
        assert isinstance(self.denoiser, ModelMixin), "text encoders are trained by adapters alone"
        tensors = [*self.denoiser.parameters(), *self.denoiser.buffers()]
        copies: dict[int, object] = {id(one): _on_host(one) for one in tensors}
        return copy.deepcopy(self.denoiser, copies)  # everything but the weights is small

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Inside, all networks compute in `dtype`: float32 strictly, halves by autocast; no weight is changed for good."""
        compiled, self._compiled = self._compiled, None
        try:
            with (
                nullcontext() if compiled is None else compiled.turned(on=False),
                nullcontext() if self._copies is None else self._copies.left_out(),
                self._initial_unrounded(dtype),
                self._forwards.computing_in(dtype, self.denoiser),
            ):
                yield
        finally:
            self._compiled = compiled

    @contextmanager
    def _initial_unrounded(self, dtype: torch.dtype) -> Iterator[None]:
        """Inside, an initial model that is kept in half precision computes with the weights that it was rounded from."""
        if self._read_initial is None or self._initial_copy is None:
            yield
            return
        with half_layers_in(dtype, self._initial_copy, self._read_initial()):
            yield

    # --- fewer casts -----------------------------------------------------------------------------------------------

    def copy_weights_in(self, dtype: torch.dtype) -> None:
        """Round what is trained once, and not in every forward; `follow_weights` after each change."""
        self._copies = WorkingCopies(self.denoiser, dtype)

    def follow_weights(self) -> None:
        """After an optimiser step: round the weights anew, where they were rounded before."""
        if self._copies is not None:
            self._copies.follow()

    def _release_copies(self) -> None:
        if self._copies is not None:
            self._copies.release()
            self._copies = None

    def keep_initial_in(self, dtype: torch.dtype, read: Callable[[], Weights]) -> None:
        """Keep the initial model of a full fine-tune as autocast rounds it; `read` gives its float32 weights anew, for what needs those.

        Not of a reference that moves, which begins as those weights and is averaged with others.
        """
        assert self._initial_copy is not None, "there is a copy"
        assert self._store is None, "the reference is frozen"
        hold_in_half(self._initial_copy, dtype)
        self._read_initial = read

    @contextmanager
    def initial_weights(self) -> Iterator[Weights]:
        """The weights that a full fine-tune started from by name, float32; on whatever device they are."""
        if self._read_initial is not None:
            yield self._read_initial()
            return
        with self.initial_denoiser() as initial:
            yield dict(initial.named_parameters())

    # --- fewer launches --------------------------------------------------------------------------------------------

    def record_with(self, recorder: Recorder) -> None:
        """Record the policy's and the initial model's forwards once for each shape, and replay them from then on."""
        self._release_copies()  # casts are recorded too, and cost no launch
        self._forwards.record_with(recorder, list(self.trainable().values()))

    def forget_recordings(self) -> None:
        """Give back the memory that they hold; what is asked next is recorded anew."""
        self._forwards.forget_recordings()

    def take_recording_trouble(self) -> str | None:
        """Why something could not be recorded, and is run plainly; said once."""
        return self._forwards.take_trouble()

    def compile_with(self, backend: Backend = "inductor") -> None:
        """Compile the networks' repeated blocks, from when `compiled` is next entered."""
        self._release_copies()  # a compiler casts within what it fuses
        if self._compiled is None:
            self._compiled = compile_blocks(self.networks(), backend)
            if (
                self.family.device.type == "cuda" and self.kind == "lora"
            ):  # a full fine-tune's moving reference is kept in files
                lay_channels_last(self.networks())
        self.forget_recordings()  # of what was not compiled

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Inside, blocks run as they were compiled, if they were: for steps, whose shapes stay. Elsewhere they run plainly."""
        with nullcontext() if self._compiled is None else self._compiled.turned(on=True):
            yield

    def compile_no_more(self) -> None:
        """Run plainly, after compiling has failed."""
        self._compiled = None

    def networks(self) -> list[nn.Module]:
        """The denoiser and a copy of it, without text encoders."""
        denoiser = next(iter(parts_of(self.denoiser).values()))
        return [denoiser] if self._initial_copy is None else [denoiser, self._initial_copy]

    # --- weights in shares ---------------------------------------------------------------------------------------------

    def shard(self, mesh: DeviceMesh) -> None:
        """Share the networks' weights out over the processes; before there is a moving reference or an optimiser."""
        denoiser = next(iter(parts_of(self.denoiser).values()))  # text encoders are small beside it
        for network in (denoiser, self._initial_copy):
            if isinstance(network, ModelMixin):
                shard(network, mesh)
        self._is_sharded = True
        if self.kind == "lora":
            self.average_apart()

    def average_apart(self) -> None:
        """Average gradients once a step and not in each backward, whose processes then do not wait for each other."""
        self._averages_apart = True

    def average_gradients(self) -> None:
        """Once an optimiser step, after its last backward: the mean of what no wrapper averages."""
        if self._averages_apart:
            average_gradients(self.trainable().values())

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, the first process has all weights of a full fine-tune `on_host`; every process enters and leaves."""
        if self._is_sharded and self.kind == "full":
            assert isinstance(self.denoiser, ModelMixin), "text encoders are trained by adapters alone"
            self._gathered = gathered(self.denoiser, self.network_type)
        try:
            yield
        finally:
            self._gathered = None

    def load_whole(self, weights: Weights) -> None:
        """Give the policy of a full fine-tune these weights."""
        if self._is_sharded:
            load_whole(self.denoiser, weights)
        else:
            self.denoiser.load_state_dict(weights)

    # --- a reference that moves ------------------------------------------------------------------------------------

    def let_reference_move(self, store: AdapterStore, *, rank_cap: int | None = None, offload_initial: bool) -> None:
        """Give the reference weights of its own, at first those of the initial model.

        `rank_cap` belongs to `lowrank_sum`; `shared_A` takes an adapter whose A is frozen (`freeze_a`). A full fine-tune keeps
        every weight and needs no `store`; `offload_initial` holds its initial model on the CPU. Raises `ModelError` when a
        target module cannot be averaged in this way.
        """
        if self._initial_copy is not None:
            assert not isinstance(self.denoiser, ReadingNetwork), "text encoders are trained by adapters alone"
            full = ShardedFullWeights if self._is_sharded else FullWeights
            self._store = full(self.denoiser, self._initial_copy)
            self._offload_initial = offload_initial
        else:
            self._store = adapter_store(self.denoiser, store, rank_cap)
        self.reset_reference()

    @property
    def reference_moves(self) -> bool:
        """Whether the reference may be another model than the initial one."""
        return self._store is not None

    @property
    def reference(self) -> dict[str, Tensor]:
        """The moving reference's weights; not to be written to."""
        return self._reference

    def set_reference(self, weights: Weights) -> None:
        """Make the reference the model with these weights."""
        self._reference = {name: value.detach() for name, value in weights.items()}

    def reset_reference(self) -> None:
        """Make the reference the initial model again."""
        self.set_reference(self._moving().initial())

    def blend(self, alpha: float) -> dict[str, Tensor]:
        """(1-alpha) reference + alpha policy, float32; carries the policy's gradient where that is enabled."""
        return self._moving().blend(self._reference, alpha)

    def blending_metrics(self, alpha: float) -> dict[str, float]:
        """What `blend` misses of the average, as metrics by name; none where the store is exact."""
        return self._moving().blending_metrics(self._reference, alpha)

    def predict_with(
        self, weights: Weights | None, x_t: Latents, times: Times, conditioning: dict[str, Tensor]
    ) -> Latents:
        """The prediction, float32, of a reference with these weights, or of the policy outside the distributed wrapper."""
        if weights is None:
            return self._forwards.predict(self.denoiser, x_t, times, conditioning)
        with self._moving().denoiser(weights) as denoiser:
            return self._forwards.predict(denoiser, x_t, times, conditioning)

    def load_reference(self, weights: Weights) -> None:
        """Put back what `reference` was; raises `CheckpointError` when a weight is missing or of another shape."""
        if self._store is None:
            return
        forms = self._store.forms()
        shapes = next((form for form in forms if form.keys() & weights.keys()), forms[0])
        for name, shape in shapes.items():
            if name not in weights or not _fits(weights[name], shape):
                raise CheckpointError("checkpoint_altered", f"the reference's {name!r} is missing or has another shape")
        like = self._reference if self.kind == "full" else {}  # only its weights may lie in shares
        self.set_reference(
            {name: share_of(weights[name].to(self.family.device), like.get(name, weights[name])) for name in shapes}
        )

    def _moving(self) -> ReferenceWeights:
        assert self._store is not None, "the reference is frozen"
        return self._store


def _on_host(tensor: Tensor) -> Tensor:
    copied = tensor.detach().to("cpu", copy=True)
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _fits(tensor: Tensor, shape: Shape) -> bool:
    return tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))
