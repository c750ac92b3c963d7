"""The shapes of the tensors that modules give each other: one definition each.

Images are float32 in [0, 1]; latents are what the denoiser sees, already scaled (and shifted) by the family.
"""

from jaxtyping import Float, Int, Num
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
Latents = Float[Tensor, "batch channels h w"]
PerExample = Float[Tensor, " batch"]
PerStep = Float[Tensor, " T"]  # of a sampler's steps, noisiest first
Timesteps = Int[Tensor, " batch"]  # indices into the noise levels of a path, 0 the cleanest
Times = Num[Tensor, " batch"]  # what a network is told of them
