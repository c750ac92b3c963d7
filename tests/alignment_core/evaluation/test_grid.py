import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from alignment_core.evaluation.grid import MAX_WIDTH, Headline, _wrap, draw_grid, headline_of, places_in_grid
from alignment_core.reports import ComparedModel, EvaluationReport, Interval, RewardComparison

RED, BLUE = (255, 0, 0), (0, 0, 255)
HEADLINE = Headline("taste +1.0", "how it was measured")


def flat(color: tuple[int, int, int], prompts: int, seeds: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (prompts, seeds, *size, 3)).copy()


def grid(prompts: list[str], seeds: int = 2, size: tuple[int, int] = (32, 32)) -> Image.Image:
    num = len(prompts)
    return draw_grid(prompts, flat(RED, num, seeds, size), flat(BLUE, num, seeds, size), HEADLINE)


def count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(axis=-1).sum())


@pytest.mark.parametrize(("num_prompts", "seeds", "shown"), [(1, 1, 1), (8, 2, 2), (8, 1, 1), (5, 4, 2), (64, 2, 2)])
def test_every_prompt_shows_as_many_base_as_aligned_pixels(num_prompts: int, seeds: int, shown: int) -> None:
    image = grid(["a red circle"] * num_prompts, seeds)
    assert count(image, RED) == count(image, BLUE) == num_prompts * shown * 160**2
    assert image.width <= MAX_WIDTH


def test_base_stands_above_aligned() -> None:
    pixels = np.asarray(grid(["a red circle"], seeds=1)).astype(int)
    red_rows = np.flatnonzero((pixels == RED).all(axis=-1).any(axis=1))
    blue_rows = np.flatnonzero((pixels == BLUE).all(axis=-1).any(axis=1))
    assert red_rows.max() < blue_rows.min() <= red_rows.max() + 10


def test_small_images_are_enlarged_without_blur() -> None:
    checkered = np.indices((8, 8)).sum(axis=0)[None, None, :, :, None] % 2 * np.array([255, 0, 0])
    image = draw_grid(["a"], checkered.astype(np.uint8), flat(BLUE, 1, 1, (8, 8)), HEADLINE)
    assert count(image, RED) == 160**2 // 2


def test_images_keep_their_places_and_their_shape() -> None:
    base = np.stack([flat((10 * index + 5, 200, 7), 1, 2, (16, 24))[0] for index in range(6)])
    image = draw_grid(["a"] * 6, base, flat(BLUE, 6, 2, (16, 24)), HEADLINE)
    tops = []
    for index in range(6):
        rows, columns = np.nonzero((np.asarray(image) == (10 * index + 5, 200, 7)).all(axis=-1))
        assert len(rows) == 2 * 112 * 168  # 16 x 24 pixels, seven times larger, two seeds
        tops.append((rows.min(), columns.min()))
    assert tops == sorted(tops)  # reading order


def test_large_images_are_reduced() -> None:
    image = grid(["a"] * 8, seeds=2, size=(512, 512))
    assert count(image, RED) == 8 * 2 * 256**2
    assert image.width <= MAX_WIDTH


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   ",
        "word " * 400,
        "x" * 2000,
        "ein schöner Hund,\nим Парк, 公园里的狗 🐶",
        "\x00\x07\u202e",
        '"quoted" & <b>',
    ],
)
def test_any_prompt_can_be_a_caption(prompt: str) -> None:
    image = grid([prompt, "a red circle"])
    assert count(image, RED) == 2 * 2 * 160**2


@given(st.text(max_size=300), st.integers(1, 2))
def test_captions_stay_under_their_images(prompt: str, seeds: int) -> None:
    plain, captioned = (np.asarray(grid([text], seeds)) for text in ("", prompt))
    right_edge = 32 + 84 + seeds * 164 - 4
    assert (captioned[92:, right_edge + 1 :] == 255).all()
    assert captioned.shape[1] == plain.shape[1]


def test_a_caption_is_readable() -> None:
    pixels = np.asarray(grid(["a red circle"], seeds=1))
    caption = pixels[-32 - 20 : -32, 32 + 84 :]
    dark = np.all(caption < 100, axis=-1)
    assert 60 < dark.sum() < 2000
    font = ImageFont.load_default(16)
    assert np.flatnonzero(np.any(dark, axis=0)).max() == pytest.approx(font.getlength("a red circle"), abs=4)


def test_a_long_caption_ends_in_an_ellipsis_and_a_short_one_does_not() -> None:
    lines = _wrap("a very long caption " * 20, 320)
    assert len(lines) == 3
    assert [line.endswith("...") for line in lines] == [False, False, True]
    assert _wrap("a red circle", 320) == ["a red circle"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=400), st.integers(100, 600))
def test_no_line_of_a_caption_is_wider_than_its_block(text: str, width: int) -> None:
    lines = _wrap(text, width)
    assert 1 <= len(lines) <= 3
    assert all(ImageFont.load_default(16).getlength(line) <= width for line in lines)


def report(gain: float, low: float, high: float, judge: float | None = None) -> EvaluationReport:
    def line(name: str, base: float, policy: float) -> RewardComparison:
        interval = Interval(low=low, high=high, confidence=0.95)
        return RewardComparison(
            name=name,
            base_mean=base,
            policy_mean=policy,
            gain=policy - base,
            gain_interval=interval,
            win_rate=0.975,
            bootstrap_interval=interval,
            num_ties=0,
        )

    return EvaluationReport(
        step=40,
        base=ComparedModel(label="initial model", step=None, spec_sha256=None),
        policy=ComparedModel(label="step 40", step=40, spec_sha256=""),
        num_prompts=57,
        seeds_per_prompt=2,
        num_inference_steps=12,
        guidance_scale=2.5,
        primary_reward="colorfulness",
        verdict="improved",
        rewards=[line("colorfulness", 0.5, 0.5 + gain)],
        prompt_following=None if judge is None else line("prompt_following", 0.95, judge),
        diversity=None,
        spec_sha256="",
        base_model_sha256="",
        versions={},
        elapsed_seconds=0,
        images=[],
    )


def test_the_headline_states_gain_interval_win_rate_and_what_was_drawn() -> None:
    headline = headline_of(report(0.18342, 0.1712, 0.1954, judge=0.9425))
    assert headline.title == "colorfulness 0.500 to 0.683: +0.183 (95% interval +0.171 to +0.195)"
    assert headline.subtitle == (
        "improved: the aligned image scores higher in 98% of 114 pairs of the same prompt and noise; "
        "prompt-following 0.950 before, 0.943 after; 57 prompts x 2 seeds, after 40 steps."
    )


@pytest.mark.parametrize(
    ("gain", "low", "high", "title"),
    [
        (12.3456, 10.0, 15.0, "+12.3 (95% interval +10.0 to +15.0)"),
        (-0.00123, -0.0015, -0.001, "-0.00123 (95% interval -0.00150 to -0.00100)"),
        (0.0, 0.0, 0.0, "+0.000 (95% interval +0.000 to +0.000)"),
        (1234.5, 1000.0, 1500.0, "+1234 (95% interval +1000 to +1500)"),
    ],
)
def test_the_headline_shows_as_many_digits_as_the_interval_bears(
    gain: float, low: float, high: float, title: str
) -> None:
    assert headline_of(report(gain, low, high)).title.endswith(f": {title}")


def test_without_rewards_the_headline_claims_nothing() -> None:
    headline = headline_of(report(0.1, 0.0, 0.2).model_copy(update={"rewards": []}))
    assert headline == Headline(
        "Base and aligned model", "Same prompt and noise in each pair; 57 prompts x 2 seeds, after 40 steps."
    )


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (512, 512), (300, 400)])
def test_each_image_is_where_the_grid_says(size: tuple[int, int]) -> None:
    base = np.stack(
        [[np.full((*size, 3), 10 + 20 * index + seed, np.uint8) for seed in range(3)] for index in range(5)]
    )
    prompts, seeds = ["a red circle", "a long prompt " * 30, "b", "c", "d"], [(7, 8, 9)] * 5
    pixels = np.asarray(draw_grid(prompts, base, 255 - base, HEADLINE))
    found = places_in_grid(prompts, seeds, base)
    assert (found.image_height, found.image_width) == size
    assert [(one.prompt, one.seed) for one in found.tiles] == [(index, seed) for index in range(5) for seed in (7, 8)]
    for one in found.tiles:
        value = 10 + 20 * one.prompt + one.seed - 7
        for place, expected in ((one.base, value), (one.policy, 255 - value)):
            tile = pixels[place.y : place.y + found.tile_height, place.x : place.x + found.tile_width]
            assert tile.shape == (found.tile_height, found.tile_width, 3)
            assert (tile == expected).all()
    assert (pixels == 10).all(axis=-1).sum() == found.tile_height * found.tile_width, "nothing of an image is outside"
