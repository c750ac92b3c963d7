"""Runs that start from a LoRA of others: what the policy, the reference and the initial model are, and what is saved."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pydantic import ValidationError
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.actors.actors import Actors
from alignment_core.alignment import align
from alignment_core.errors import AlignmentError, ModelError
from alignment_core.evaluation.weight_change import initial_norms, weight_deltas
from alignment_core.events import EvaluationCompleted, Event, StepCompleted
from alignment_core.exports.export import export
from alignment_core.families.lora_file import read_lora
from alignment_core.families.lora_places import place
from alignment_core.families.merge import merge, update_of
from alignment_core.families.sd_keys import SD
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.networks import load_networks
from alignment_core.reports import EvaluationReport, StartingPoint
from alignment_core.spec import JobSpec, LocalSource
from alignment_core.spec.places import Sources, localize
from alignment_core.spec.start import LocalLora
from tests.alignment_core.families.loras import (
    Layers,
    pipeline_of,
    random_layers,
    save_diffusers,
    save_kohya,
    save_peft,
)
from tests.alignment_core.tiny import tiny_spec
from tests.servers.hub import COMMIT, REPO, hub_of

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

NO_CACHE = Path("/nonexistent")  # nothing is unpacked
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
STARTS: dict[str, dict[str, Any]] = {
    "merge": {"mode": "merge"},
    "train, the LoRA initial": {"mode": "train"},
    "train, the base initial": {"mode": "train", "initial": "base"},
}


@pytest.fixture(scope="module")
def layers(tiny_model: Path) -> Layers:
    return random_layers(pipeline_of(tiny_model).unet, ATTENTION, rank=2, alpha=3.0)


@pytest.fixture(scope="module")
def lora(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kohya({"unet": layers}, tmp_path_factory.mktemp("lora") / "style.safetensors")


def spec_of(model: Path, pairs: Path, lora: Path, start: dict[str, Any], **changes: Any) -> JobSpec:
    given = {"lora": {"type": "local", "path": str(lora)}, **start}
    return tiny_spec(model, pairs, start=given, adapter={"type": "lora", "rank": 2, "alpha": 3.0}, **changes)


def actors_of(spec: JobSpec) -> Actors:
    return load_networks(spec.resolved("sd"), Sources(), new_accelerator(spec.resolved()), NO_CACHE)[1]


def inputs() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(2, 8, 16, generator=generator)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([10, 900]), {"prompt_embeds": embeds}


@pytest.mark.parametrize(("start", "kind"), [("merge", "lora"), ("merge", "full"), ("train, the LoRA initial", "lora")])
def test_policy_reference_and_initial_model_agree_at_step_0(
    start: str, kind: str, tiny_model: Path, tiny_pairs: Path, lora: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, lora, STARTS[start])
    if kind == "full":
        spec = JobSpec.model_validate({**spec.model_dump(), "adapter": {"type": "full"}})
    actors, given = actors_of(spec), inputs()
    policy = actors.predict_policy(*given)
    assert torch.equal(policy, actors.predict_reference(*given))
    assert torch.equal(policy, actors.predict_initial(*given))
    bare = actors_of(tiny_spec(tiny_model, tiny_pairs))
    assert not torch.allclose(policy, bare.predict_policy(*given), atol=1e-3)


def test_in_half_precision_they_agree_too(tiny_model: Path, tiny_pairs: Path, lora: Path) -> None:
    start = STARTS["train, the LoRA initial"]
    spec = spec_of(tiny_model, tiny_pairs, lora, start, training={**TRAINING, "precision": "bf16"})
    x_t, timesteps, conditioning = inputs()
    actors = actors_of(spec)
    assert torch.equal(
        actors.predict_policy(x_t, timesteps, conditioning), actors.predict_initial(x_t, timesteps, conditioning)
    )


def test_with_the_base_initial_the_policy_has_the_lora_and_the_reference_has_not(
    tiny_model: Path, tiny_pairs: Path, lora: Path
) -> None:
    spec, given = spec_of(tiny_model, tiny_pairs, lora, STARTS["train, the base initial"]), inputs()
    actors, bare = actors_of(spec), actors_of(tiny_spec(tiny_model, tiny_pairs))
    with_lora = actors_of(spec_of(tiny_model, tiny_pairs, lora, STARTS["train, the LoRA initial"]))
    assert torch.equal(actors.predict_reference(*given), bare.predict_initial(*given))
    assert torch.equal(actors.predict_policy(*given), with_lora.predict_policy(*given))
    assert not torch.allclose(actors.predict_policy(*given), actors.predict_reference(*given), atol=1e-3)


@pytest.mark.parametrize(
    "reference",
    [
        {"type": "hard_copy", "every": 2},
        {"type": "ema", "alpha": 0.3, "ref_store": "dense_delta"},
        {"type": "ema", "alpha": 0.3, "ref_store": "lowrank_sum", "ref_rank_cap": 4},
        {"type": "ema", "alpha": 0.3, "ref_store": "shared_A"},
    ],
    ids=lambda one: one.get("ref_store", one["type"]),
)
def test_a_reference_that_moves_begins_as_the_lora_and_moves_from_there(
    reference: dict[str, Any], tiny_model: Path, tiny_pairs: Path, lora: Path, layers: Layers
) -> None:
    start = STARTS["train, the LoRA initial"]
    actors = actors_of(spec_of(tiny_model, tiny_pairs, lora, start, reference=reference))
    store = reference.get("ref_store", "hard_copy")
    actors.let_reference_move(store, rank_cap=reference.get("ref_rank_cap"), offload_initial=False)
    given = inputs()
    begun = actors.predict_policy(*given).detach()
    assert torch.equal(actors.predict_reference(*given), begun)
    with torch.no_grad():
        for name, parameter in actors.trainable().items():
            if ".lora_B." in name:
                parameter.mul_(1.5)
    moved = actors.predict_policy(*given).detach()
    actors.set_reference(actors.blend(0.5))
    # B of the start and 1.5 B average to 1.25 B
    with torch.no_grad():
        for name, parameter in actors.trainable().items():
            if ".lora_B." in name:
                parameter.mul_(1.25 / 1.5)
    halfway = actors.predict_policy(*given).detach()
    assert torch.allclose(actors.predict_reference(*given), halfway, atol=1e-5)
    assert not torch.allclose(begun, moved, atol=1e-3)
    assert torch.equal(actors.predict_initial(*given), begun)
    actors.reset_reference()
    assert torch.equal(actors.predict_reference(*given), begun)


def test_the_change_of_weights_is_counted_from_where_training_started(
    tiny_model: Path, tiny_pairs: Path, lora: Path, layers: Layers
) -> None:
    begun = actors_of(spec_of(tiny_model, tiny_pairs, lora, STARTS["train, the LoRA initial"]))
    merged = actors_of(spec_of(tiny_model, tiny_pairs, lora, STARTS["merge"]))
    assert initial_norms(begun) == pytest.approx(initial_norms(merged))
    from_lora = weight_deltas(begun)
    from_base = weight_deltas(actors_of(spec_of(tiny_model, tiny_pairs, lora, STARTS["train, the base initial"])))
    assert all(not bool(change.any()) for change in from_lora.values())
    for name, layer in layers.items():
        assert torch.allclose(from_base[f"{name}.weight"], update_of(layer), atol=1e-6)


def run(spec: JobSpec, workdir: Path, cache_dir: Path, *, stop_after: int | None = None) -> list[Event]:
    events: list[Event] = []
    stream = align(spec, workdir, cache_dir=cache_dir)
    for event in stream:
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == stop_after:
            stream.close()
    return events


def last_checkpoint(workdir: Path) -> Path:
    found = checkpoints.latest(workdir / "checkpoints")
    assert found is not None
    return found


@pytest.mark.parametrize("start", STARTS)
def test_a_run_says_what_it_started_from_and_ends_the_same_when_it_is_interrupted(
    start: str, tiny_model: Path, tiny_pairs: Path, lora: Path, tmp_path: Path, cache_dir: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, lora, STARTS[start], training=TRAINING)
    whole = run(spec, tmp_path / "whole", cache_dir)
    run(spec, tmp_path / "halves", cache_dir, stop_after=2)
    run(spec, tmp_path / "halves", cache_dir)
    folders = [last_checkpoint(tmp_path / name) for name in ("whole", "halves")]
    manifests = [checkpoints.read_manifest(folder) for folder in folders]
    kept = [[file for file in one.files if not file.path.endswith("history.json")] for one in manifests]
    assert kept[0] == kept[1]
    completed = next(event for event in whole if isinstance(event, EvaluationCompleted))
    report = EvaluationReport.model_validate(completed.report)
    assert report.subject is not None
    told = report.subject.start
    assert isinstance(told, StartingPoint)
    assert (told.mode, told.format, told.num_layers) == (STARTS[start]["mode"], "kohya", 32)
    assert told.lora == str(lora)
    assert manifests[0].spec["start"]["initial"] == told.initial == STARTS[start].get("initial", "lora")
    page = next(tmp_path.glob("whole/evaluation/*/*.html")).read_text()
    assert {"merge": "merged into the initial model"}.get(start, "started from the LoRA") in page


TRAINING = {
    **{"steps": 3, "batch_size": 2, "gradient_accumulation_steps": 1},
    **{"learning_rate": 1e-2, "validation_fraction": 0.2},
}


@pytest.mark.parametrize("start", ["merge", "train, the LoRA initial"])
def test_the_checkpoint_is_one_lora_for_the_model_as_it_is_given_out(
    start: str, tiny_model: Path, tiny_pairs: Path, layers: Layers, tmp_path: Path, cache_dir: Path
) -> None:
    """Images of the bare model with the checkpoint's file are those of the policy, text encoder included."""
    text = random_layers(pipeline_of(tiny_model).text_encoder, ("q_proj",)) if start == "merge" else {}
    lora = save_diffusers({"unet": layers, **({"text_encoder": text} if text else {})}, tmp_path / "style.safetensors")
    spec = spec_of(tiny_model, tiny_pairs, lora, STARTS[start], training=TRAINING)
    run(spec, tmp_path / "work", cache_dir)
    folder = last_checkpoint(tmp_path / "work")
    theirs = pipeline_of(tiny_model)
    theirs.load_lora_weights(str(folder))
    ours = pipeline_with_policy(spec, folder)
    assert torch.allclose(_draw(ours), _draw(theirs), rtol=0, atol=1e-5)
    if start == "merge":
        kohya = pipeline_of(tiny_model)
        components = {"unet": kohya.unet, "text_encoder": kohya.text_encoder}
        merge(components, place(read_lora(folder / "pytorch_lora_weights_kohya.safetensors"), components, SD))
        assert torch.allclose(_draw(ours), _draw(kohya), rtol=0, atol=1e-5)
        list(export(folder, tmp_path / "merged", "merged"))
        card = (tmp_path / "merged" / "README.md").read_text()
        assert "the LoRA `style.safetensors`, merged into the base model and part of these weights" in card
        assert "and from the LoRA `style.safetensors` and stand under their licences" in card
        assert str(tmp_path) not in card
        assert torch.allclose(_draw(ours), _draw(pipeline_of(tmp_path / "merged")), rtol=0, atol=1e-5)
    assert not torch.allclose(_draw(ours), _draw(pipeline_of(tiny_model)), atol=1e-3)


def pipeline_with_policy(spec: JobSpec, folder: Path) -> StableDiffusionPipeline:
    actors = actors_of(spec)
    actors.family.load_policy(actors, folder)
    return actors.family.pipeline(actors.denoiser)  # pyright: ignore[reportAttributeAccessIssue]


def _draw(pipeline: StableDiffusionPipeline) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(
        pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="np").images  # pyright: ignore[reportAttributeAccessIssue]
    )


def test_a_full_fine_tune_on_a_merged_lora_saves_what_was_merged_into_the_text_encoder(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, cache_dir: Path
) -> None:
    text = random_layers(pipeline_of(tiny_model).text_encoder, ("q_proj",), rank=2, alpha=2.0)
    lora = save_kohya({"text_encoder": text}, tmp_path / "text.safetensors")
    spec = JobSpec.model_validate(
        {**spec_of(tiny_model, tiny_pairs, lora, {}, training=TRAINING).model_dump(), "adapter": {"type": "full"}}
    )
    run(spec, tmp_path / "work", cache_dir)
    saved = pipeline_of(last_checkpoint(tmp_path / "work") / "pipeline").text_encoder.state_dict()
    bare = pipeline_of(tiny_model).text_encoder.state_dict()
    for name, layer in text.items():
        assert torch.allclose(saved[f"{name}.weight"] - bare[f"{name}.weight"], update_of(layer), atol=1e-6)


def test_a_checkpoint_is_the_start_of_the_next_run(
    tiny_model: Path, tiny_pairs: Path, lora: Path, tmp_path: Path, cache_dir: Path
) -> None:
    """A folder will do for a file, and the policy of the first run is the initial model of the second, bit for bit."""
    first = spec_of(tiny_model, tiny_pairs, lora, STARTS["train, the LoRA initial"], training=TRAINING)
    run(first, tmp_path / "first", cache_dir)
    folder = last_checkpoint(tmp_path / "first")
    actors = actors_of(spec_of(tiny_model, tiny_pairs, folder, STARTS["train, the LoRA initial"]))
    given = inputs()
    trained = actors_of(first)
    trained.family.load_policy(trained, folder)
    assert torch.equal(actors.predict_initial(*given), trained.predict_policy(*given))


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ({"rank": 4, "alpha": 3.0}, "has the rank 2, and adapter.rank is 4"),
        ({"rank": 2}, "has the alpha 3, and adapter.alpha is 2.0"),
        (
            {"rank": 2, "alpha": 3.0, "target_modules": ["to_q"]},
            "leaves out .*its layers end in to_k, to_out.0, to_q, to_v",
        ),
        (
            {"rank": 2, "alpha": 3.0, "target_modules": [*ATTENTION, "proj_in"]},
            "takes in .*proj_in', which the LoRA does not",
        ),
    ],
)
def test_an_adapter_that_is_not_the_files_is_told_what_the_files_is(
    adapter: dict[str, Any], told: str, tiny_model: Path, tiny_pairs: Path, lora: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, lora, {"mode": "train"})
    with pytest.raises(ModelError, match=told):
        actors_of(JobSpec.model_validate({**spec.model_dump(), "adapter": {"type": "lora", **adapter}}))


def test_a_text_encoders_layers_are_merged_and_not_trained(
    tiny_model: Path, tiny_pairs: Path, layers: Layers, tmp_path: Path
) -> None:
    text = random_layers(pipeline_of(tiny_model).text_encoder, ("q_proj",))
    lora = save_diffusers({"unet": layers, "text_encoder": text}, tmp_path / "both.safetensors")
    with pytest.raises(ModelError, match=r"it changes text_encoder too.*use merge"):
        actors_of(spec_of(tiny_model, tiny_pairs, lora, {"mode": "train"}))


def test_a_lora_whose_alpha_nobody_says_is_refused_until_the_spec_says_it(
    tiny_model: Path, tiny_pairs: Path, layers: Layers, tmp_path: Path
) -> None:
    lora = save_peft(layers, tmp_path / "adapter_model.safetensors")
    with_config = actors_of(spec_of(tiny_model, tiny_pairs, lora, {})).predict_policy(*inputs())
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"write its lora_alpha as start\.alpha") as refused:
        actors_of(spec_of(tiny_model, tiny_pairs, lora, {}))
    assert refused.value.code == "lora_alpha_unknown"
    said = actors_of(spec_of(tiny_model, tiny_pairs, lora, {"alpha": 3.0}))
    assert torch.equal(said.predict_policy(*inputs()), with_config)


def test_another_lora_under_the_same_name_does_not_go_on_with_a_run(
    tiny_model: Path, tiny_pairs: Path, layers: Layers, tmp_path: Path, cache_dir: Path
) -> None:
    lora = save_kohya({"unet": layers}, tmp_path / "style.safetensors")
    spec = spec_of(tiny_model, tiny_pairs, lora, {}, training=TRAINING)
    run(spec, tmp_path / "work", cache_dir, stop_after=2)
    save_kohya({"unet": dict(list(layers.items())[:3])}, lora)
    with pytest.raises(AlignmentError, match="other model weights"):
        run(spec, tmp_path / "work", cache_dir)


def test_what_cannot_be_meant_is_refused_in_the_spec(tiny_model: Path, tiny_pairs: Path, lora: Path) -> None:
    with pytest.raises(ValidationError, match=r"start.mode merge adds to it"):
        spec_of(tiny_model, tiny_pairs, lora, {"mode": "merge", "initial": "base"})
    spec = spec_of(tiny_model, tiny_pairs, lora, {"mode": "train"})
    with pytest.raises(ValidationError, match=r"start.mode train goes on with a LoRA, and adapter is full"):
        JobSpec.model_validate({**spec.model_dump(), "adapter": {"type": "full"}})
    for file in ("../x.safetensors", "/x.safetensors", "a//b.safetensors", "x.bin", ".hidden/x.safetensors"):
        source = {"type": "hub", "repo_id": "a/b", "revision": "0" * 40, "file": file}
        with pytest.raises(ValidationError, match=r"file: |pattern"):
            JobSpec.model_validate({**spec.model_dump(), "start": {"lora": source}})


def test_ids_stand_for_what_sources_say_they_are(tiny_model: Path, tiny_pairs: Path) -> None:
    weights, checkpoint = f"wts_{'0' * 26}", f"ckpt_{'0' * 26}"
    sources = Sources(
        weights={weights: LocalLora(path="a")},
        loras_of_checkpoints={checkpoint: LocalLora(path="b")},
        models_of_checkpoints={checkpoint: LocalSource(path="c")},
    )
    plain = tiny_spec(tiny_model, tiny_pairs).model_dump()
    for lora, path in ((weights, "a"), (checkpoint, "b")):
        here = localize(JobSpec.model_validate({**plain, "model": checkpoint, "start": {"lora": lora}}), sources)
        assert here.start is not None
        assert here.start.lora == LocalLora(path=path)
        assert here.model == LocalSource(path="c")
    unknown = JobSpec.model_validate({**plain, "start": {"lora": weights}})
    with pytest.raises(ModelError, match="was not told where its service has this"):
        actors_of(unknown)


def test_specs_from_before_there_were_starts_and_flows_keep_their_hash() -> None:
    training = {"precision": "fp32"}  # the default until there was `auto`, and written out in every stored spec
    plain = {"model": "sd15", "method": {"type": "diffusion_dpo", "dataset": f"ds_{'0' * 26}"}, "training": training}
    spec = JobSpec.model_validate(plain)
    assert spec.sha256() == "9da14b486a212ab2f80b25de9541d246810944cc9d41756043da17cbcd98116a"
    flowing = {**plain, "method": {**plain["method"], "flow_beta": "one_minus_s_squared"}}
    guided = {**plain, "training": {**training, "embedded_guidance": 1.0}}
    assert len({JobSpec.model_validate(one).sha256() for one in (plain, flowing, guided)}) == 3


@pytest.mark.slow  # a process of its own, which alone may have another Hub
def test_a_lora_of_the_hub_is_read_at_its_commit(
    tiny_model: Path, tiny_pairs: Path, layers: Layers, tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    lora = save_kohya({"unet": layers}, tmp_path / "repository" / "style.safetensors")
    local = spec_of(tiny_model, tiny_pairs, lora, {"mode": "merge"}, training=TRAINING, evaluation={})
    source = {"type": "hub", "repo_id": REPO, "revision": COMMIT, "file": "style.safetensors"}
    hub = JobSpec.model_validate({**local.model_dump(), "start": {"lora": source}})
    (tmp_path / "spec.json").write_text(hub.model_dump_json())
    with hub_of(tmp_path / "repository") as (address, downloads):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        command = ["run", str(tmp_path / "spec.json"), "--workdir", str(tmp_path / "work")]
        subprocess.run(
            [sys.executable, "-m", "alignment_core", *command, "--cache-dir", str(tmp_path / "cache")],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
    assert [path for path, _ in downloads if path.endswith("style.safetensors")]
    run(local, tmp_path / "local", tmp_path / "cache")
    files = [last_checkpoint(tmp_path / name) / "pytorch_lora_weights.safetensors" for name in ("work", "local")]
    assert files[0].read_bytes() == files[1].read_bytes()
