"""Agreement against published worked examples."""

import pytest

from service.api.agreement import cohens_kappa, krippendorffs_alpha


def test_cohens_kappa_of_the_textbook_table() -> None:
    """Fifty proposals, 20 and 15 agreed on, 5 and 10 not: p_o 0.7, p_e 0.5, kappa 0.4."""
    pairs = 20 * [("yes", "yes")] + 5 * [("yes", "no")] + 10 * [("no", "yes")] + 15 * [("no", "no")]
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([]) is None
    assert cohens_kappa(3 * [("yes", "yes")]) is None


def test_krippendorffs_alpha_of_his_own_example_with_missing_values() -> None:
    """Section C of "Computing Krippendorff's Alpha-Reliability": four observers, twelve units, nominal alpha 0.743."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[str(one) for one in column if one is not None] for column in zip(*table, strict=True)]
    assert krippendorffs_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorffs_alpha([["a"], ["b"]]) is None
