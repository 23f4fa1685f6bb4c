"""An app's report as a page: the sentence, the ladder with bars, and where it got worse."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.tuning.app.report import AppReport, Loss, Rung

_STYLE = """
.lit-app { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto;
  padding: 0 1rem; color: #1c1c1c; background: #fff; }
.lit-app .said { font-size: 1.2rem; padding: .6rem 1rem; border-left: 5px solid #1a7f5a; }
.lit-app .kept { border-color: #8a5a00; }
.lit-app .wide { overflow-x: auto; }
.lit-app table { border-collapse: collapse; width: 100%; }
.lit-app td, .lit-app th { padding: .25rem .8rem .25rem 0; text-align: left;
  vertical-align: top; }
.lit-app th { border-bottom: 1px solid #777; }
.lit-app .number { text-align: right; white-space: nowrap; }
.lit-app .taken { font-weight: 700; }
.lit-app .bar { background: #1a7f5a; height: .7rem; min-width: 1px; }
.lit-app .track { min-width: 6rem; background: #e6e6e2; }
@media (prefers-color-scheme: dark) {
  .lit-app { color: #eee; background: #181818; } .lit-app .track { background: #444; }
  .lit-app .bar { background: #5cc79c; } }
"""


def page(report: AppReport) -> str:
    """One page that needs no other file; every text is escaped."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>A tuned app</title></head><body>{body(report)}</body></html>"
    )


def body(report: AppReport) -> str:
    """What a notebook shows."""
    state = "said" if report.changed else "said kept"
    gain = report.gains["ndcg@10"]
    parts = [
        f'<style>{_STYLE}</style><div class="lit-app">',
        f'<p class="{state}">{escape(report.sentence)}</p>',
        f"<p>Served: <strong>{escape(report.served)}</strong>. {escape(report.reason)}.</p>",
        '<div class="wide"><table><tr><th>parts</th><th></th><th class="number">nDCG@10</th>'
        '<th class="number">hit@5</th><th class="number">over the app before, '
        f'{gain.confidence:.0%} interval</th><th class="number">ms</th></tr>',
        *map(_rung, report.ladder),
        f"</table></div><p>The choice itself, cross-fitted: {gain.base:.3f} → {gain.tuned:.3f}, "
        f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) on {gain.n} "
        f"{escape(report.kind)}.</p>",
        _losses(report.worse),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        "</div>",
    ]
    return "\n".join(parts)


def _rung(rung: Rung) -> str:
    value, gain = rung.values["ndcg@10"], rung.gain
    return (
        f'<tr class="{"taken" if rung.taken else ""}" title="{escape(rung.reason)}">'
        f"<td>{escape(rung.name)}</td>"
        f'<td class="track"><div class="bar" style="width:{100 * value:.0f}%"></div></td>'
        f'<td class="number">{value:.3f}</td>'
        f'<td class="number">{rung.values["hit_rate@5"]:.2f}</td>'
        f'<td class="number">{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})</td>'
        f'<td class="number">{rung.milliseconds:.1f}</td></tr>'
    )


def _losses(losses: list[Loss]) -> str:
    if not losses:
        return ""
    rows = "".join(
        f'<tr><td class="number">{loss.before or "–"} → {loss.now or "–"}</td>'
        f"<td>{escape(loss.question)}</td><td>{escape(loss.document)}</td></tr>"
        for loss in losses
    )
    return (
        '<details><summary>Where it got worse</summary><div class="wide"><table><tr>'
        f"<th>rank</th><th>question</th><th>what answers it</th></tr>{rows}</table></div></details>"
    )
