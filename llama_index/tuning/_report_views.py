"""The report as one HTML page.

Plots, by matplotlib, without touching its global state.
"""

from __future__ import annotations

import io
import json
from html import escape
from typing import TYPE_CHECKING

from llama_index.tuning.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llama_index.tuning.report import FinetuneReport, Gains


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
.verdict { padding: .6rem 1rem; border-left: 5px solid; background: #f6f6f4; }
.accepted { border-color: #1a7f5a; } .kept { border-color: #b3402a; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid #999; }
pre { background: #f6f6f4; padding: .8rem; overflow: auto; font-size: .85rem; }
svg { max-width: 100%; height: auto; }
"""


def render(report: FinetuneReport) -> str:
    """The whole page; every text of the run is escaped."""
    state = "accepted" if report.accepted else "kept"
    details = {
        key: getattr(report, key) for key in ("data", "options", "seed", "seconds", "versions")
    }
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(report.title)}</h1>",
        *([f"<p><strong>{escape(report.headline)}</strong></p>"] if report.headline else []),
        f'<p class="verdict {state}"><strong>{report.verdict.capitalize()}</strong> – '
        f"{escape(report.reason)}</p>",
        _plot(report),
        *(_table(name, gains, report.method) for name, gains in report.groups().items()),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        "<h2>How this came about</h2>",
        f"<pre>{escape(json.dumps(details, indent=2, ensure_ascii=False))}</pre>",
        "</body></html>",
    ]
    return "\n".join(parts)


def _table(name: str, gains: Gains, method: str) -> str:
    first = next(iter(gains.values()))
    rows = "".join(
        f"<tr><td>{escape(metric)}</td><td>{gain.base:.4f}</td><td>{gain.tuned:.4f}</td>"
        f"<td>{gain.mean:+.4f}</td><td>{gain.low:+.4f} to {gain.high:+.4f}</td></tr>"
        for metric, gain in gains.items()
    )
    return (
        f"<h2>{escape(name)} (n={first.n}, {escape(method)})</h2><table><tr><th>metric</th>"
        f"<th>base</th><th>tuned</th><th>gain</th><th>{first.confidence:.0%} interval</th></tr>"
        f"{rows}</table>"
    )


def _plot(report: FinetuneReport) -> str:
    if not report.gains:
        return ""
    try:
        figure = report.plot()
    except MissingExtraError as exc:
        return f"<p>(no plot: {escape(str(exc))})</p>"
    image = io.StringIO()
    figure.savefig(image, format="svg")
    return image.getvalue()[image.getvalue().index("<svg") :]


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
