"""The evaluation report as a table for people."""

from rich.table import Table

from alignment_core.reports import EvaluationReport, RewardComparison
from alignment_core.spec.counted import counted


def table_of(report: EvaluationReport) -> Table:
    """One row a reward: base, policy, gain with its interval, win rate."""
    drawn = f"{counted(report.num_prompts, 'held-out prompt')} x {counted(report.seeds_per_prompt, 'seed')}"
    title = f"{report.verdict.replace('_', ' ')}: {drawn}"
    table = Table(title=title, title_justify="left")
    rows = [(comparison, comparison.name) for comparison in report.rewards]
    if report.prompt_following is not None:
        rows.append((report.prompt_following, "prompt-following"))
    interval = f"{rows[0][0].gain_interval.confidence:.0%} interval" if rows else "interval"
    for heading in ("reward", "base", "aligned", "gain", interval, "win rate"):
        table.add_column(heading, justify="left" if heading == "reward" else "right")
    for comparison, name in rows:
        table.add_row(*_cells(comparison, name, report.num_prompts * report.seeds_per_prompt))
    if report.diversity is not None:
        base, policy = report.diversity.base, report.diversity.policy
        table.add_row("diversity", f"{base:.3f}", f"{policy:.3f}", f"{policy - base:+.3f}", "", "")
    return table


def _cells(comparison: RewardComparison, name: str, num_images: int) -> list[str]:
    interval = comparison.gain_interval
    return [
        name,
        f"{comparison.base_mean:.3f}",
        f"{comparison.policy_mean:.3f}",
        f"{comparison.gain:+.3f}",
        f"{interval.low:+.3f} .. {interval.high:+.3f}",
        "ties" if comparison.num_ties == num_images else f"{comparison.win_rate:.2f}",
    ]
