"""Do Diffusion-KTO and MaPO work? On the demo model, preferences for colour must give colour, and the opposite must not."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment_core import JobSpec
from demo.assets import ASSETS
from tests.science.test_diffusion_dpo import colorfulness_of, demo_spec, report_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The demo model has 256 latent dimensions and small errors; batches of 32 images settle Diffusion-KTO's Q.
METHODS: dict[str, dict[str, Any]] = {
    "diffusion_kto": {"type": "diffusion_kto", "beta": 500, "like_probability": None, "caption_dropout": 0.0},
    "mapo": {"type": "mapo"},
}
BATCH_SIZE = {"diffusion_kto": 32, "mapo": 16}


def spec_of(name: str, pairs: Path) -> JobSpec:
    """`demo/job.yaml` with another method."""
    spec = demo_spec(pairs, training={"batch_size": BATCH_SIZE[name]}).model_dump(mode="json")
    dataset = {"type": "local", "path": str(pairs)}
    return JobSpec.model_validate({**spec, "method": {**METHODS[name], "dataset": dataset}})


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def opposite_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = pq.read_table(ASSETS / "pairs.parquet")
    turned = table.rename_columns({"chosen": "rejected", "rejected": "chosen"})
    path = tmp_path_factory.mktemp("pairs") / "opposite.parquet"
    pq.write_table(turned, path)
    return path


@pytest.fixture(scope="module")
def judged_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's pairs as single images with a like or a dislike."""
    table = pq.read_table(ASSETS / "pairs.parquet")
    sides = [table.select(["prompt", side]).rename_columns(["prompt", "image"]) for side in ("chosen", "rejected")]
    images = pa.concat_tables(
        [side.append_column("label", pa.array([label] * len(side))) for side, label in zip(sides, (1, 0), strict=True)]
    )
    path = tmp_path_factory.mktemp("images") / "images.parquet"
    pq.write_table(images, path)
    return path


@pytest.mark.parametrize("name", METHODS)
def test_preferences_for_colour_give_colour_on_held_out_prompts(name: str, tmp_path: Path, cache_dir: Path) -> None:
    report = report_of(spec_of(name, ASSETS / "pairs.parquet"), tmp_path, cache_dir)
    colorfulness, following = colorfulness_of(report), report.prompt_following
    assert report.verdict == "improved"
    assert colorfulness.gain >= 0.08
    assert colorfulness.gain_interval.low > 0
    assert following is not None
    assert following.policy_mean >= following.base_mean - 0.1


@pytest.mark.parametrize("name", METHODS)
def test_the_opposite_preferences_take_colour_away(
    name: str, opposite_pairs: Path, tmp_path: Path, cache_dir: Path
) -> None:
    colorfulness = colorfulness_of(report_of(spec_of(name, opposite_pairs), tmp_path, cache_dir))
    assert colorfulness.gain_interval.high < 0


def test_single_images_teach_as_well_as_pairs_do(judged_images: Path, tmp_path: Path, cache_dir: Path) -> None:
    report = report_of(spec_of("diffusion_kto", judged_images), tmp_path, cache_dir)
    assert colorfulness_of(report).gain_interval.low > 0
