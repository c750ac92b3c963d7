"""The smallest model that the benchmarks run on."""

from benchmarks.step.sizes import Size

MICRO = Size(
    resolution=64,
    photo=80,
    denoiser={
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "layers_per_block": 1,
    },
    vae={"block_out_channels": (4, 4, 8, 8), "norm_num_groups": 2},
    text=({"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},),
    batch_size=2,
)
