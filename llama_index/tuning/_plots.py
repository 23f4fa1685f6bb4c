"""Plots, by matplotlib, without touching its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.tuning.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llama_index.tuning.report import FinetuneReport


def plot_gains(report: FinetuneReport) -> Figure:
    """One panel for each group of queries: each metric's gain with its interval."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtraError("plot()", "matplotlib", "plots") from exc

    groups = report.groups()
    if not groups:
        raise ValueError(f"there is nothing to plot: {report.reason}")
    height = 1.0 + 0.32 * max(map(len, groups.values()))
    figure = Figure(figsize=(4.2 * len(groups), height), layout="constrained")
    alike = len({tuple(gains) for gains in groups.values()}) == 1  # else labels and scales differ
    panels = figure.subplots(1, len(groups), sharey=alike, sharex=alike, squeeze=False)[0]
    for panel, (name, gains) in zip(panels, groups.items(), strict=True):
        metrics = list(gains)[::-1]
        for row, metric in enumerate(metrics):
            gain = gains[metric]
            colour = "#1a7f5a" if gain.low >= 0 else "#b3402a" if gain.high < 0 else "#777777"
            panel.plot([gain.low, gain.high], [row, row], color=colour, linewidth=2.5)
            panel.plot(gain.mean, row, "o", color=colour, markersize=6)
        panel.axvline(0, color="#222222", linewidth=0.8)
        panel.set_yticks(range(len(metrics)), metrics)
        panel.set_title(f"{name} (n={next(iter(gains.values())).n})", fontsize=10)
        panel.set_xlabel("gain over the base")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure
