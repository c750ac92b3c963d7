"""Means of per-example metrics."""

from collections.abc import Mapping

import torch

from alignment_core.shapes import PerExample


def metric_means(metrics: Mapping[str, PerExample]) -> dict[str, float]:
    """The mean of each metric over the examples that it says something of: NaN stands for the others.

    The loss of every example counts: one that is no number must be seen.
    """
    means = [values.mean() if name == "loss" else values.nanmean() for name, values in metrics.items()]
    return dict(zip(metrics, torch.stack(means).tolist(), strict=True))
