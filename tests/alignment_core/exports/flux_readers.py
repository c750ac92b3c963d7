"""diffusers' own readers of FLUX's other forms, for a model of another width than the only one that they know."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from diffusers.loaders import lora_pipeline, single_file_model
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers


@contextmanager
def flux_readers_of_width(width: int) -> Iterator[None]:
    """`load_lora_weights` and `from_single_file` take a transformer of `width`; 3072 is written in their code."""
    weights = with_other_text(
        convert_flux_transformer_checkpoint_to_diffusers, {"inner_dim = 3072": f"inner_dim = {width}"}
    )
    dims = {"dims=[3072, 3072, 3072, 12288]": f"dims=[{width}, {width}, {width}, {4 * width}]"}
    lora = with_other_text(_convert_kohya_flux_lora_to_diffusers, dims)
    known = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(known, "checkpoint_mapping_fn", weights)
        patch.setattr(lora_pipeline, "_convert_kohya_flux_lora_to_diffusers", lora)
        yield


def with_other_text(function: Callable[..., Any], texts: Mapping[str, str]) -> Callable[..., Any]:
    """The function again, with some texts of its source replaced."""
    source = inspect.getsource(function)
    for old, new in texts.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    names = dict(function.__globals__)
    exec(source, names)
    return names[function.__name__]
