import numpy as np
import pytest

from alignment_core.evaluation.diversity import pairwise_distance


def flat(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 5, 3), level, np.uint8) for level in levels])


def test_equal_images_have_no_distance_and_black_and_white_the_largest() -> None:
    assert pairwise_distance(flat(90, 90, 90)) == 0
    assert pairwise_distance(flat(0, 255)) == 1


def test_three_images_by_hand() -> None:
    # Distances |0-51|, |0-153| and |51-153| of 255: 0.2, 0.6 and 0.4.
    assert pairwise_distance(flat(0, 51, 153)) == pytest.approx(0.4)


def test_the_distance_of_a_pair_is_the_root_of_the_mean_square() -> None:
    images = flat(0, 0)
    images[1, 0, 0, 0] = 255
    assert pairwise_distance(images) == pytest.approx((1 / 60) ** 0.5)


def test_the_order_of_the_images_does_not_matter() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    assert pairwise_distance(images) == pytest.approx(pairwise_distance(images[::-1]))


def test_one_image_has_no_diversity() -> None:
    with pytest.raises(ValueError, match="at least two"):
        pairwise_distance(flat(0))
