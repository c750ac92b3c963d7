"""The page of the benchmark in Markdown: the findings, which are written by hand, and the tables, which are not."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.protocol import BETAS, COMPARISONS, CONTROL_BETAS, ROWS, TEST_SEEDS, TUNED, TUNING_SEEDS, Row
from benchmarks.results import Results, beta_of, comparisons
from benchmarks.statistics import Mean, mean_of

FINDINGS = Path(__file__).with_name("findings.md")
LABELS = {row.key: row.label for row in ROWS}


def page_of(results: Results) -> str:
    """The whole of `docs/reproduction.md`."""
    parts = [
        FINDINGS.read_text().rstrip(),
        "![Gain against prompt-following, and against diversity: Diffusion-DPO over beta, and the online methods](reproduction.svg)",
        "## All rows\n\n" + "\n".join(main_table(results)),
        "## Planned comparisons\n\n" + "\n".join(comparison_table(results)),
        "## Beta, re-tuned\n\n" + "\n".join(beta_table(results)),
        f"Code of the runs: commit `{results.commit}`. The figures of every run are in "
        "[reproduction.json](reproduction.json); `python -m benchmarks.reproduction --render-only` makes this page of them.",
    ]
    if missing := [row.label for row in ROWS if not results.has(row.key, beta_of(row.key))]:
        parts.insert(3, f"Not run on every seed, and therefore not shown: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def main_table(results: Results) -> Iterator[str]:
    """Every row that has all its seeds; offline rows at the common beta."""
    yield "| method | gain | held-out reward | win rate | prompt-following | diversity | drift x 1000 | UNet forwards | CPU s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    shown = [row for row in ROWS if results.has(row.key, beta_of(row.key))]
    if shown:
        yield _base_line(results, shown[0])
    for row in shown:
        yield _line(results, row)


def _base_line(results: Results, row: Row) -> str:
    reward, held_out, following, diversity = (
        mean_of(results.of(row.key, f"base_{name}", beta_of(row.key)))
        for name in ("reward", "held_out", "following", "diversity")
    )
    return (
        f"| base (its own values) | {reward.value:.3f} | {held_out.value:.3f} | | {following.value:.3f} "
        f"| {diversity.value:.3f} | 0 | 0 | 0 |"
    )


def _line(results: Results, row: Row) -> str:
    def mean(figure: str) -> Mean:
        return mean_of(results.of(row.key, figure, beta_of(row.key)))

    return (
        f"| {row.label} | {_signed(mean('gain'))} | {_signed(mean('held_out_gain'))} | {mean('win_rate').value:.3f} "
        f"| {_plain(mean('following'))} | {mean('diversity').value:.3f} | {1000 * mean('drift').value:.1f} "
        f"| {mean('unet_forwards').value:,.0f} | {mean('cpu_seconds').value:.0f} |"
    )


def comparison_table(results: Results) -> Iterator[str]:
    """The planned comparisons, Holm-corrected over those that could be made."""
    yield "| claim | difference in gain | p | p, Holm | holds |"
    yield "|---|---|---|---|---|"
    for comparison, test, corrected in comparisons(results):
        where = ", each at its own beta" if comparison.tuned else ""
        yield (
            f"| {LABELS[comparison.better]} > {LABELS[comparison.than]}{where} | {_signed(test.difference)} "
            f"| {test.p_value:.2g} | {corrected:.2g} | {_verdict(test.difference.value, corrected)} |"
        )


def _verdict(difference: float, p: float) -> str:
    if p >= 0.05:
        return "not shown"
    return "yes" if difference > 0 else "**the opposite**"


def beta_table(results: Results) -> Iterator[str]:
    """Gain, prompt-following and drift of each tuned variant at every beta; the chosen beta in bold."""
    columns = sorted({*BETAS, *CONTROL_BETAS})
    yield (
        f"Gain / prompt-following / drift x 1000 over the {len(TEST_SEEDS)} test seeds; **bold**: the beta chosen on seeds "
        + (
            f"{', '.join(map(str, TUNING_SEEDS))} and on the tuning prompts, of {', '.join(f'{beta:g}' for beta in BETAS)}.\n"
        )
    )
    yield "| method | " + " | ".join(f"beta {beta:g}" for beta in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for row in TUNED:
        if all(results.has(row.key, beta, TEST_SEEDS + TUNING_SEEDS) for beta in BETAS):
            chosen = results.tuned_beta(row.key)
            entries = [_entry(results, row, beta, bold=beta == chosen) for beta in columns]
            yield f"| {row.label} | " + " | ".join(entries) + " |"


def _entry(results: Results, row: Row, beta: float, *, bold: bool) -> str:
    if not results.has(row.key, beta):
        return ""
    gain, following, drift = (mean_of(results.of(row.key, name, beta)) for name in ("gain", "following", "drift"))
    text = f"{_signed(gain)} / {following.value:.3f} / {1000 * drift.value:.1f}"
    return f"**{text}**" if bold else text


def _signed(mean: Mean) -> str:
    return f"{mean.value:+.3f} ± {mean.half_width:.3f}"


def _plain(mean: Mean) -> str:
    return f"{mean.value:.3f} ± {mean.half_width:.3f}"


def missing_comparisons(results: Results) -> int:
    """How many planned comparisons lack runs."""
    return len(COMPARISONS) - len(comparisons(results))
