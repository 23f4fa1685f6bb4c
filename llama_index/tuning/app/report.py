"""What a tuned app gained: one sentence, the ladder, and where it got worse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import numpy as np

from llama_index.tuning._files import PathLike, read_json, write_text_atomic
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.evaluate.retrieval import RetrievalScores
from llama_index.tuning.report import Gain, Gains, gains_of, report_faults


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One stack of the ladder.

    Attributes:
        name: its parts.
        values: metric → mean over the measured questions.
        gain: of nDCG@10 over the app before.
        milliseconds: a query beside embedding it and asking the store.
        taken: whether it is what is served.
        reason: of the gate on this step; empty for a stack that is no step.
    """

    name: str
    values: dict[str, float]
    gain: Gain
    milliseconds: float
    taken: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A question whose answer moved: where it stands before and now; `None` beyond the tenth."""

    question: str
    document: str
    before: int | None
    now: int | None


def moved(
    dataset: RetrievalDataset, before: RetrievalScores, now: RetrievalScores, most: int = 10
) -> tuple[list[Moved], list[Moved]]:
    """The questions that lost most, and those that gained most.

    Args:
        dataset: the questions and their documents.
        before: of the same questions as `now`, with `mrr@10`.
        now: the same with what is served.
        most: of each.
    """
    old, new = before.values["mrr@10"], now.values["mrr@10"]
    order = np.argsort(new - old, kind="stable").tolist()

    def told(place: int) -> Moved:
        id_ = now.query_ids[place]
        document = dataset.corpus[dataset.relevant_docs[id_][0]]
        return Moved(
            question=dataset.queries[id_],
            document=" ".join(document.split())[:200],
            before=_rank(old[place]),
            now=_rank(new[place]),
        )

    worse = [told(place) for place in order[:most] if new[place] < old[place]]
    better = [told(place) for place in order[: -most - 1 : -1] if new[place] > old[place]]
    return worse, better


def _rank(reciprocal: float) -> int | None:
    return round(1 / reciprocal) if reciprocal > 0 else None


@dataclass(frozen=True, kw_only=True)
class AppReport:
    """What `tune_app` measured, on questions that no part had seen.

    Attributes:
        served: the parts that are served.
        kind: what the questions are: questions, generated questions, or stand-ins.
        changed: whether something else than the app before is served.
        shown: whether its gain is shown on real questions.
        reason: why this is served.
        gains: metric → the app served against the app before; the choice among the stacks was made
            without each question that it is measured on.
        slices: the same for groups of questions.
        ladder: every stack that was measured, in the order of cost.
        worse: the questions that lost most.
        counts: of nodes, questions, folds.
        top_k: nodes that the app hands on.
        seconds: step → seconds.
        notes: what was seen and done besides.
        seed: of the run.
        fingerprint: of the questions.
        versions: library → version.
    """

    served: str
    kind: str
    changed: bool
    shown: bool
    reason: str
    gains: Gains
    slices: dict[str, Gains] = field(default_factory=dict)
    ladder: list[Rung] = field(default_factory=list)
    worse: list[Moved] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    top_k: int = 2
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        """What a query costs more than before."""
        return next((r.milliseconds for r in self.ladder if r.taken), 0.0)

    @property
    def sentence(self) -> str:
        """What it means, for someone who does not know the words."""
        return _sentence(self)

    def __str__(self) -> str:
        lines = [self.sentence, "", f"served: {self.served}", f"why: {self.reason}", ""]
        lines += _table(self)
        if self.worse:
            lines += ["", f"Where it got worse ({len(self.worse)} questions that lost most):"]
            for loss in self.worse:
                lines += [f"  {_place(loss)}  {loss.question}", f"{'':13}{loss.document[:90]}"]
        lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines).rstrip()

    def _repr_html_(self) -> str:
        return _body(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "sentence": self.sentence}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AppReport:
        """The report that `to_dict` gave.

        Raises:
            ArtifactError: it is none.
        """
        with report_faults():
            fields = {name: value for name, value in data.items() if name != "sentence"}
            fields["gains"] = gains_of(fields["gains"])
            fields["slices"] = {name: gains_of(part) for name, part in fields["slices"].items()}
            fields["ladder"] = [
                Rung(**{**rung, **gains_of({"gain": rung["gain"]})}) for rung in fields["ladder"]
            ]
            fields["worse"] = [Moved(**loss) for loss in fields["worse"]]
            return cls(**fields)

    def save_json(self, path: PathLike) -> None:
        """Write the report as JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2))

    @classmethod
    def from_json(cls, path: PathLike) -> AppReport:
        """Load what `save_json` wrote."""
        return cls.from_dict(read_json(path, ArtifactError))

    def save_html(self, path: PathLike) -> None:
        """Write one HTML page that needs no other file."""
        write_text_atomic(path, _page(self))


def _sentence(report: AppReport) -> str:
    hits = report.gains["hit_rate@5"]
    asked = {
        "stand-ins": "sentences of the documents, which stand in for questions",
        "generated questions": "generated questions",
    }.get(report.kind, "questions")
    if not report.changed:
        found = f"Answers found in the first 5: {hits.base:.0%} of {hits.n} {asked}"
        return f"{found}; nothing better was shown, the app stays as it was."
    known = "" if report.shown else " (not shown by these alone)"
    return (
        f"Answers found in the first 5: {hits.base:.0%} → {hits.tuned:.0%} of {hits.n} "
        f"{asked}{known}; {report.milliseconds:.1f} ms more a query; index untouched."
    )


def _table(report: AppReport) -> list[str]:
    width = max(len(rung.name) for rung in report.ladder) + 2
    rows = [
        f"  {'':{width}}{'nDCG@10':>9}{'hit@5':>7}   {'over the app before':<28}{'ms':>6}",
    ]
    for rung in report.ladder:
        gain = rung.gain
        span = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        mark = "*" if rung.taken else " "
        rows.append(
            f"{mark} {rung.name:{width}}{rung.values['ndcg@10']:>9.3f}"
            f"{rung.values['hit_rate@5']:>7.2f}   {span:<28}{rung.milliseconds:>6.1f}"
        )
    gain = report.gains["ndcg@10"]
    span = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    rows.append(
        f"  {'the choice, cross-fitted':{width}}{gain.tuned:>9.3f}"
        f"{report.gains['hit_rate@5'].tuned:>7.2f}   {span:<28}"
    )
    return [f"n={gain.n} {report.kind}, {gain.confidence:.0%} intervals; * is served", *rows]


def _place(loss: Moved) -> str:
    before, now = (("–" if rank is None else str(rank)) for rank in (loss.before, loss.now))
    return f"{before:>3} → {now:<3}"


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
.lit-app .plot { min-width: 9rem; width: 35%; padding: 0; height: 1px; }
.lit-app svg { display: block; width: 100%; height: 1.9rem; }
.lit-app svg line, .lit-app svg path { vector-effect: non-scaling-stroke; stroke: #1a7f5a; }
.lit-app svg .zero { stroke: #999; stroke-dasharray: 2 3; }
.lit-app svg .span { stroke-width: 2; }
.lit-app svg .mean { stroke-width: 9; stroke-linecap: round; }
@media (prefers-color-scheme: dark) {
  .lit-app { color: #eee; background: #181818; }
  .lit-app svg line, .lit-app svg path { stroke: #5cc79c; } }
"""


def _page(report: AppReport) -> str:
    """One page that needs no other file; every text is escaped."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>A tuned app</title></head><body>{_body(report)}</body></html>"
    )


def _body(report: AppReport) -> str:
    """What a notebook shows."""
    state = "said" if report.changed else "said kept"
    gain = report.gains["ndcg@10"]
    parts = [
        f'<style>{_STYLE}</style><div class="lit-app">',
        f'<p class="{state}">{escape(report.sentence)}</p>',
        f"<p>Served: <strong>{escape(report.served)}</strong> – {escape(report.reason)}.</p>",
        '<div class="wide"><table><tr><th>parts</th><th>gain over the app before, '
        f'{gain.confidence:.0%} interval</th><th></th><th class="number">nDCG@10</th>'
        '<th class="number">hit@5</th><th class="number">ms a query</th></tr>',
        *(_rung(rung, *_axis(report.ladder)) for rung in report.ladder),
        f"</table></div><p>The choice itself, cross-fitted: {gain.base:.3f} → {gain.tuned:.3f}, "
        f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) on {gain.n} "
        f"{escape(report.kind)}.</p>",
        _losses(report.worse),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        "</div>",
    ]
    return "\n".join(parts)


def _rung(rung: Rung, start: float, end: float) -> str:
    gain = rung.gain
    return (
        f'<tr class="{"taken" if rung.taken else ""}" title="{escape(rung.reason)}">'
        f'<td>{escape(rung.name)}</td><td class="plot">{_plot(gain, start, end)}</td>'
        f'<td class="number">{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})</td>'
        f'<td class="number">{rung.values["ndcg@10"]:.3f}</td>'
        f'<td class="number">{rung.values["hit_rate@5"]:.2f}</td>'
        f'<td class="number">{rung.milliseconds:.1f}</td></tr>'
    )


def _axis(ladder: list[Rung]) -> tuple[float, float]:
    """Where the plots of all rows start and end."""
    ends = [0.0, *(end for rung in ladder for end in (rung.gain.low, rung.gain.high))]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - room, max(ends) + room


def _plot(gain: Gain, start: float, end: float) -> str:
    """A gain and its interval beside zero; it stretches with the page."""
    zero, low, mean, high = (
        round(100 * (value - start) / (end - start), 2)
        for value in (0.0, gain.low, gain.mean, gain.high)
    )
    said = f"{gain.mean:+.3f}, from {gain.low:+.3f} to {gain.high:+.3f}"
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}"><line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="10"/>'
        f'<line class="span" x1="{low}" x2="{high}" y1="5" y2="5"/>'
        f'<path class="mean" d="M{mean} 5h0"/></svg>'
    )


def _losses(losses: list[Moved]) -> str:
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
