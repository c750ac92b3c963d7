"""How far people agree, with themselves and with each other.

Cohen's kappa: J. Cohen, "A coefficient of agreement for nominal scales" (1960). Krippendorff's alpha for nominal data with missing
values: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D.
"""

from collections import Counter
from collections.abc import Iterable, Sequence


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """`(p_o - p_e) / (1 - p_e)` of two judges' categories; None without units, or where both only ever said one thing."""
    if not pairs:
        return None
    num = len(pairs)
    observed = sum(a == b for a, b in pairs) / num
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(first[name] * second[name] for name in first) / num**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorffs_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """`1 - D_o / D_e` for nominal categories; each unit has what each judge said of it, and units with one judge say nothing.

    None where no unit has two judges, or only one thing was ever said.
    """
    totals, disagreed = Counter[str](), 0.0
    for unit in units:
        counts, num = Counter(unit), len(unit)
        if num > 1:
            totals.update(counts)
            disagreed += (num * num - sum(one * one for one in counts.values())) / (num - 1)
    all_values = sum(totals.values())
    expected = all_values**2 - sum(one * one for one in totals.values())
    return None if expected == 0 else 1 - (all_values - 1) * disagreed / expected
