"""The evaluation report as a table for people."""

from rich.table import Table

from alignment_core.reports import EvaluationReport, RewardComparison


def table_of(report: EvaluationReport) -> Table:
    """One row a reward: base, policy, gain with its interval, win rate."""
    title = (
        f"{report.verdict.replace('_', ' ')}: {report.num_prompts} held-out prompts x {report.seeds_per_prompt} seeds"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("reward", "base", "aligned", "gain", "interval", "win rate"):
        table.add_column(heading, justify="left" if heading == "reward" else "right")
    for comparison in report.rewards:
        table.add_row(*_cells(comparison, comparison.name))
    if report.prompt_following is not None:
        table.add_row(*_cells(report.prompt_following, "prompt-following"))
    if report.diversity is not None:
        base, policy = report.diversity.base, report.diversity.policy
        table.add_row("diversity", f"{base:.3f}", f"{policy:.3f}", f"{policy - base:+.3f}", "", "")
    return table


def _cells(comparison: RewardComparison, name: str) -> list[str]:
    interval = comparison.gain_interval
    return [
        name,
        f"{comparison.base_mean:.3f}",
        f"{comparison.policy_mean:.3f}",
        f"{comparison.gain:+.3f}",
        f"{interval.low:+.3f} .. {interval.high:+.3f}",
        f"{comparison.win_rate:.2f}",
    ]
