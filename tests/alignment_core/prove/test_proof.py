"""Models against each other that no run of ours made: a base, a LoRA in kohya's names, a U-Net out of a file."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment_core.errors import AlignmentError
from alignment_core.evaluation import policy_drift
from alignment_core.evaluation.score_table import read_table, standings_of
from alignment_core.evaluation.scored_prompts import image_sha256
from alignment_core.events import (
    Event,
    ImagesScored,
    PhaseDivided,
    PhaseProgressed,
    ProofCompleted,
    VerificationCompleted,
)
from alignment_core.families.denoiser_file import denoiser_report
from alignment_core.model_files import read_model_files
from alignment_core.prove import stage
from alignment_core.prove.proof import prove
from alignment_core.prove.proof_report import SCORES
from alignment_core.prove.verification import verify
from alignment_core.reports import ProofReport, VerificationReport
from alignment_core.spec import ProofSpec
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_kohya

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Drift from 10 draws instead of 160: what they are has tests of its own."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_drift, "DRAWS_PER_BIN", 1)
        yield


@pytest.fixture(scope="module")
def lora(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made outside, with a rank and an alpha of each layer's own."""
    layers = random_layers(pipeline_of(tiny_model).unet, ("to_q", "to_v"))
    return save_kohya({"unet": layers}, tmp_path_factory.mktemp("lora") / "style.safetensors")


@pytest.fixture(scope="module")
def unet(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune of the U-Net alone, as they are published."""
    torch.manual_seed(4)
    weights = {name: one + 0.02 * torch.randn_like(one) for name, one in load_file(tiny_model / UNET).items()}
    path = tmp_path_factory.mktemp("unet") / "diffusion_pytorch_model.safetensors"
    save_file(weights, path)
    return path


def spec_of(model: Path, *contenders: dict[str, Any], **changes: Any) -> ProofSpec:
    base = {"name": "base", "model": {"type": "local", "path": str(model)}}
    spec = {
        "contenders": [base, *({"model": base["model"], **one} for one in contenders)],
        "prompts": ["a red circle", "a blue square", "a green circle", "a red circle"],
        "rewards": ["brightness", "colorfulness"],
        "sampling": {"num_inference_steps": 2, "guidance_scale": 1.0, "batch_size": 2},
        "grid_prompts": 2,
        "bootstrap_resamples": 200,
        "resources": {"device": "cpu", "num_cpu_threads": 1},
        "seed": 3,
    }
    return ProofSpec.model_validate({**spec, **changes})


def with_lora(lora: Path, name: str = "styled", **more: Any) -> dict[str, Any]:
    return {"name": name, "lora": {"type": "local", "path": str(lora)}, **more}


def report_of(events: Iterable[Event]) -> ProofReport:
    (done,) = [event for event in events if isinstance(event, ProofCompleted)]
    return ProofReport.model_validate(done.report)


@pytest.fixture(scope="module")
def spec(tiny_model: Path, lora: Path, unet: Path) -> ProofSpec:
    other = {"name": "tuned", "denoiser": {"type": "local", "path": str(unet)}}
    return spec_of(tiny_model, with_lora(lora), other)


@pytest.fixture(scope="module")
def proof(spec: ProofSpec, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProofReport]:
    workdir = tmp_path_factory.mktemp("proof")
    return workdir, report_of(prove(spec, workdir, cache_dir=cache_dir))


def test_the_report_is_that_of_a_job_for_every_contender(proof: tuple[Path, ProofReport]) -> None:
    workdir, report = proof
    assert [one.name for one in report.contenders] == ["base", "styled", "tuned"]
    assert [one.policy.label for one in report.comparisons] == ["styled", "tuned"]
    for one in report.comparisons:
        assert one.base.label == "base"
        assert [line.name for line in one.rewards] == ["brightness", "colorfulness"]
        assert all(line.gain != 0 and line.wilson_interval and line.holm_p_value is not None for line in one.rewards)
        assert one.diversity is not None
        assert one.drift is not None
        assert one.drift.eps_dist > 0
        assert one.interval_method == "bca"
        folder = workdir / "comparisons" / one.policy.label
        assert {path.name for path in folder.iterdir()} == {"grid.png", "report.html"}
        assert f"{one.policy.label} against base" in (folder / "report.html").read_text()
    assert report.num_prompts == 3, "one that comes twice counts once"
    assert report.cards
    assert report.versions["scipy"]
    assert {one.code for one in report.warnings} == {"few_prompts"}
    assert ProofReport.model_validate_json((workdir / "report.json").read_bytes()) == report


def test_two_runs_agree_bit_for_bit(
    spec: ProofSpec, proof: tuple[Path, ProofReport], cache_dir: Path, tmp_path: Path
) -> None:
    again = report_of(prove(spec, tmp_path, cache_dir=cache_dir))
    assert (tmp_path / "scores.parquet").read_bytes() == (proof[0] / "scores.parquet").read_bytes()
    own = {"elapsed_seconds", "written_at", "comparisons"}
    assert again.model_dump(exclude=own) == proof[1].model_dump(exclude=own)
    for one, other in zip(again.comparisons, proof[1].comparisons, strict=True):
        assert one.model_copy(update={"elapsed_seconds": 0}) == other.model_copy(update={"elapsed_seconds": 0})


def test_the_table_follows_from_the_scores_alone(proof: tuple[Path, ProofReport], tmp_path: Path) -> None:
    shutil.copy(proof[0] / "scores.parquet", tmp_path / "downloaded.parquet")
    found = standings_of(read_table(tmp_path / "downloaded.parquet"))
    assert (found.anchor, found.best) == (proof[1].anchor, proof[1].best)
    for standing, comparison in zip(found.standings, proof[1].comparisons, strict=True):
        for name in ("verdict", "rewards", "prompt_following", "diversity"):
            assert getattr(standing, name) == getattr(comparison, name), name


def test_every_score_says_what_made_it(spec: ProofSpec, proof: tuple[Path, ProofReport]) -> None:
    rows = pq.read_table(proof[0] / "scores.parquet").to_pylist()
    assert len(rows) == 3 * 3 * 2 * 2, "contenders, prompts, seeds, rewards"
    models = {one.name: one.sha256 for one in proof[1].contenders}
    judges = {one.name: one.sha256 for one in proof[1].judges}
    assert len(set(models.values())) == 3
    assert all(row["model_sha256"] == models[row["contender"]] for row in rows)
    assert all(row["reward_sha256"] == judges[row["reward"]] for row in rows)
    assert {row["prompt"] for row in rows} == {"a red circle", "a blue square", "a green circle"}


def test_a_run_that_is_killed_draws_nothing_twice(
    spec: ProofSpec, proof: tuple[Path, ProofReport], cache_dir: Path, tmp_path: Path
) -> None:
    kept: list[str] = []
    for left_after in (1, 3):  # twice, the second time within another contender
        run = prove(spec, tmp_path, cache_dir=cache_dir)
        scored = (event for event in run if isinstance(event, ImagesScored))
        kept += [next(scored).path for _ in range(left_after)]
        run.close()
    (tmp_path / "shards" / "styled-00009.parquet").write_bytes(b"half a file, of a machine that lost its power")
    last = list(prove(spec, tmp_path, cache_dir=cache_dir))
    kept += [event.path for event in last if isinstance(event, ImagesScored)]
    assert len(kept) == len(set(kept)) == 9, "a file for each prompt of each contender"
    assert next(event.done for event in last if isinstance(event, PhaseProgressed)) == 2 * 5
    assert (tmp_path / "scores.parquet").read_bytes() == (proof[0] / "scores.parquet").read_bytes()


def test_a_lora_counts_as_much_as_its_strength(tiny_model: Path, cache_dir: Path, tmp_path: Path) -> None:
    unet = pipeline_of(tiny_model).unet
    plain, strong = (
        save_kohya({"unet": random_layers(unet, ("to_q", "to_v"), alpha=alpha)}, tmp_path / f"{alpha:g}.safetensors")
        for alpha in (3.0, 6.0)
    )
    contenders = [with_lora(plain, "none", strength=0), with_lora(plain), with_lora(strong, "half", strength=0.5)]
    report = report_of(prove(spec_of(tiny_model, *contenders), tmp_path / "out", cache_dir=cache_dir))
    none, whole, half = (one.rewards[0] for one in report.comparisons)
    assert none.num_ties == 6
    assert whole.gain != 0
    assert hashes(tmp_path / "out", "half") == hashes(tmp_path / "out", "styled")
    assert half == whole
    assert [one.strength for one in report.contenders] == [None, 0, 1, 0.5]


def test_a_unet_of_a_file_draws_what_the_whole_model_with_it_draws(
    spec: ProofSpec, tiny_model: Path, unet: Path, cache_dir: Path, tmp_path: Path, proof: tuple[Path, ProofReport]
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tiny_model, whole)
    shutil.copy(unet, whole / UNET)
    other = spec_of(whole, {"name": "same"})
    report_of(prove(other, tmp_path / "out", cache_dir=cache_dir))
    assert hashes(tmp_path / "out", "base") == hashes(proof[0], "tuned")


def hashes(workdir: Path, contender: str) -> list[str]:
    rows = pq.read_table(workdir / "scores.parquet").to_pylist()
    return [row["image_sha256"] for row in rows if row["contender"] == contender]


def test_the_header_of_a_denoiser_says_the_layers_of_its_model(tiny_model: Path, unet: Path) -> None:
    report = denoiser_report(unet)
    assert report is not None
    assert report.shapes == read_model_files(tiny_model).layers


def test_what_judging_took_is_told_apart_from_drawing(
    tiny_model: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every contender, and of a verification: two batches of two images each, so many seconds each."""
    judge = stage.judged_batch
    monkeypatch.setattr(stage, "judged_batch", lambda *given: replace(judge(*given), scoring_seconds=0.25))
    spec = spec_of(tiny_model, {"name": "same"}, prompts=["a red circle", "a blue square"], seeds_per_prompt=2)
    told = list(prove(spec, tmp_path, cache_dir=cache_dir))
    divided = [event.seconds for event in told if isinstance(event, PhaseDivided)]
    assert divided == [{"scoring": 0.5}, {"scoring": 0.5}]
    again = verify(spec, tmp_path / SCORES, num_prompts=1, cache_dir=cache_dir)
    assert [one.seconds for one in again if isinstance(one, PhaseDivided)] == [{"scoring": 0.25}, {"scoring": 0.25}]


def test_prompts_may_come_from_a_file(tiny_model: Path, cache_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    source = {"type": "local", "path": str(tmp_path / "prompts.txt")}
    report = report_of(
        prove(spec_of(tiny_model, {"name": "same"}, prompts=source), tmp_path / "out", cache_dir=cache_dir)
    )
    assert (report.num_prompts, report.num_images) == (2, 8)
    assert report.best is None, "a model is no better than itself"


def test_the_hash_of_an_image_is_that_of_its_pixels(proof: tuple[Path, ProofReport]) -> None:
    import numpy as np
    from PIL import Image

    shard = pq.read_table(proof[0] / "shards" / "base-00000.parquet").to_pylist()[0]
    pixels = np.asarray(Image.open(io.BytesIO(shard["pictures"][0])))
    assert image_sha256(pixels) == shard["image_sha256"][0]


@pytest.mark.parametrize(
    ("contender", "code", "told"),
    [
        ({"denoiser": {"type": "local", "path": "LORA"}}, "denoiser_unfit", "of the model's denoiser is missing"),
        ({"denoiser": {"type": "local", "path": "/nowhere.safetensors"}}, "denoiser_not_found", "no such file"),
        ({"lora": {"type": "local", "path": "UNET"}}, "lora_invalid", "unknown key"),
    ],
)
def test_what_does_not_fit_is_named(
    contender: dict[str, Any],
    code: str,
    told: str,
    tiny_model: Path,
    lora: Path,
    unet: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    paths = json.dumps(contender).replace("LORA", str(lora)).replace("UNET", str(unet))
    with pytest.raises(AlignmentError, match=told) as raised:
        list(prove(spec_of(tiny_model, {"name": "odd", **json.loads(paths)}), tmp_path, cache_dir=cache_dir))
    assert raised.value.code == code


def test_a_work_folder_of_another_spec_or_of_other_files_is_refused(
    spec: ProofSpec, tiny_model: Path, lora: Path, cache_dir: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(lora, mine)
    own = spec_of(tiny_model, with_lora(mine), prompts=["a red circle"])
    run = prove(own, tmp_path / "out", cache_dir=cache_dir)
    next(event for event in run if isinstance(event, ImagesScored))
    run.close()
    with pytest.raises(AlignmentError, match="another evaluation"):
        list(prove(spec, tmp_path / "out", cache_dir=cache_dir))
    save_file({name: 2 * one for name, one in load_file(mine).items()}, mine)
    with pytest.raises(AlignmentError, match="the files of styled have changed"):
        list(prove(own, tmp_path / "out", cache_dir=cache_dir))


# --- once more -----------------------------------------------------------------------------------------------------


def verified(spec: ProofSpec, scores: Path, cache_dir: Path) -> VerificationReport:
    (done,) = [one for one in verify(spec, scores, 2, cache_dir=cache_dir) if isinstance(one, VerificationCompleted)]
    return VerificationReport.model_validate(done.report)


def test_what_is_drawn_again_is_identical(spec: ProofSpec, proof: tuple[Path, ProofReport], cache_dir: Path) -> None:
    found = verified(spec, proof[0] / "scores.parquet", cache_dir)
    assert found.outcome == "identical"
    assert found.num_images == found.num_equal_images == 3 * 2 * 2
    assert all(one.num_equal == 12 and one.largest == 0 for one in found.scores)
    assert found.scores_sha256 == proof[1].scores_sha256


def test_scores_that_were_made_up_are_found_out(
    spec: ProofSpec, proof: tuple[Path, ProofReport], cache_dir: Path, tmp_path: Path
) -> None:
    table = pq.read_table(proof[0] / "scores.parquet")
    rows = [{**row, "score": row["score"] + (row["contender"] == "styled")} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, table.schema), tmp_path / "scores.parquet")
    found = verified(spec, tmp_path / "scores.parquet", cache_dir)
    assert found.outcome == "different"
    assert found.num_equal_images == found.num_images, "the images are those of then"
    assert max(one.largest for one in found.scores) == pytest.approx(1)


def test_a_model_that_has_changed_is_found_out(tiny_model: Path, lora: Path, cache_dir: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(lora, mine)
    own = spec_of(tiny_model, with_lora(mine))
    list(prove(own, tmp_path / "out", cache_dir=cache_dir))
    save_file({name: 2 * one for name, one in load_file(mine).items()}, mine)
    found = verified(own, tmp_path / "out" / "scores.parquet", cache_dir)
    assert found.outcome == "different"
    assert found.changed == ["styled"]
    assert 0 < found.num_equal_images < found.num_images


# --- from the command line -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    spec: ProofSpec, proof: tuple[Path, ProofReport], cache_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        "evaluate",
        str(tmp_path / "spec.json"),
        "--workdir",
        str(tmp_path / "out"),
        "--cache-dir",
        str(cache_dir),
    ]
    done = subprocess.run(
        [*launcher, "-m", "alignment_core", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "run_completed"
    assert (tmp_path / "out" / "scores.parquet").read_bytes() == (proof[0] / "scores.parquet").read_bytes()


def test_the_command_computes_the_table_from_the_file(proof: tuple[Path, ProofReport]) -> None:
    command = [sys.executable, "-m", "alignment_core", "standings", str(proof[0] / "scores.parquet")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["standings"][0]["rewards"][0]["gain"] == proof[1].comparisons[0].rewards[0].gain
