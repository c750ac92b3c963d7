import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from alignment_core.rewards.colorfulness import Colorfulness
from demo.captions import parse_caption, train_captions
from demo.pairs import draw_prompts, main, make_pairs, ranked_pair


def colorfulness(images: list[bytes]) -> torch.Tensor:
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images])
    return Colorfulness()(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, [""] * len(images))


@pytest.fixture
def shipped(assets):
    return pq.read_table(assets / "pairs.parquet").to_pydict()


def test_the_shipped_rows_are_canonical(shipped):
    assert list(shipped) == ["prompt", "chosen", "rejected", "label", "score", "group_id"]
    assert len(shipped["prompt"]) == 192
    assert set(shipped["label"]) == {1.0}
    assert min(shipped["score"]) > 0
    assert all(image.startswith(b"\x89PNG") for image in shipped["chosen"] + shipped["rejected"])


def test_the_shipped_prompts_are_training_captions(shipped):
    assert len(set(shipped["prompt"])) == 192
    assert not any(parse_caption(prompt).held_out for prompt in shipped["prompt"])


def test_chosen_is_more_colourful_than_rejected(shipped):
    gap = colorfulness(shipped["chosen"]) - colorfulness(shipped["rejected"])
    assert (gap > 0).all()
    # The score was taken before the images were rounded to bytes.
    torch.testing.assert_close(gap, torch.tensor(shipped["score"]).float(), atol=0.01, rtol=0)


def test_the_same_seed_writes_the_same_bytes(assets, tmp_path):
    files = [tmp_path / f"{n}.parquet" for n in range(3)]
    for file, seed in zip(files, ["3", "3", "4"], strict=True):
        main(["--out", str(file), "--prompts", "6", "--samples", "2", "--seed", seed])
    first, second, other = (file.read_bytes() for file in files)
    assert first == second
    assert first != other


def test_shuffled_labels_swap_images_and_change_nothing_else(pipeline):
    straight = make_pairs(pipeline, 12, 2, seed=5).to_pylist()
    shuffled = make_pairs(pipeline, 12, 2, seed=5, swap_probability=0.5).to_pylist()
    swapped = [a["chosen"] == b["rejected"] for a, b in zip(straight, shuffled, strict=True)]
    assert 0 < sum(swapped) < 12
    for a, b, swap in zip(straight, shuffled, swapped, strict=True):
        assert (a["prompt"], a["score"], a["label"]) == (b["prompt"], b["score"], b["label"])
        images = (b["rejected"], b["chosen"]) if swap else (b["chosen"], b["rejected"])
        assert (a["chosen"], a["rejected"]) == images


def test_the_best_sample_is_chosen_and_the_worst_rejected():
    images = torch.stack([torch.full((3, 2, 2), value) for value in (0.0, 0.5, 1.0)])
    row = ranked_pair(images, torch.tensor([0.25, 1.0, 0.5]), "a red circle", swapped=False)
    swapped = ranked_pair(images, torch.tensor([0.25, 1.0, 0.5]), "a red circle", swapped=True)
    assert row["score"] == swapped["score"] == 0.75
    assert np.asarray(Image.open(io.BytesIO(row["chosen"]))).max() == 128
    assert np.asarray(Image.open(io.BytesIO(row["rejected"]))).max() == 0
    assert (row["chosen"], row["rejected"]) == (swapped["rejected"], swapped["chosen"])


def test_every_training_caption_is_drawn_before_any_comes_again():
    num_captions = len(train_captions())
    prompts = draw_prompts(num_captions + 10, np.random.default_rng(0))
    assert len(set(prompts[:num_captions])) == num_captions
    assert len(prompts) == num_captions + 10


def test_noise_and_shuffling_exclude_each_other(tmp_path):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "x"), "--label-noise", "0.1", "--shuffle-labels"])
