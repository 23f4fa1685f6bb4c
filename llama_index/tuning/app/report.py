"""What a tuned app gained: one sentence, the ladder, and where it got worse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning._files import PathLike, read_json, write_text_atomic
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.evaluate.retrieval import RetrievalScores
from llama_index.tuning.pages import duration, readable_date, render, words
from llama_index.tuning.report import Gain, Gains, check_fields, gains_of, report_faults


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One stack of the ladder.

    Attributes:
        name: its parts.
        values: metric → mean over the measured questions.
        gain: of nDCG@10 over the app before.
        milliseconds: of a query more than before, beside embedding it.
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
    dataset: RetrievalDataset,
    nodes: Mapping[str, BaseNode],
    before: RetrievalScores,
    now: RetrievalScores,
    most: int = 10,
) -> tuple[list[Moved], list[Moved]]:
    """The questions that lost most, and those that gained most.

    Args:
        dataset: the questions and their documents.
        nodes: id → node, whose text is shown without its metadata.
        before: of the same questions as `now`, with `mrr@10`.
        now: the same with what is served.
        most: of each.
    """
    old, new = before.values["mrr@10"], now.values["mrr@10"]
    order = np.argsort(new - old, kind="stable").tolist()

    def told(place: int) -> Moved:
        id_ = now.query_ids[place]
        document = dataset.relevant_docs[id_][0]
        return Moved(
            question=_start(dataset.queries[id_]),
            document=_start(nodes[document].get_content() or dataset.corpus[document]),
            before=_rank(old[place]),
            now=_rank(new[place]),
        )

    worse = [told(place) for place in order[:most] if new[place] < old[place]]
    better = [told(place) for place in order[: -most - 1 : -1] if new[place] > old[place]]
    return worse, better


def _start(text: str) -> str:
    return " ".join(text.split())[:200]


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
        better: those that gained most.
        model: the app's embedding model, by name.
        date: when it was measured, ISO 8601 in UTC.
        counts: of nodes, questions, folds.
        top_k: nodes that the app hands on.
        seconds: step → seconds.
        notes: what was seen and done besides.
        seed: of the run.
        fingerprint: of the questions.
        versions: library → version.
        reindexed: whether documents are searched by other vectors than the app's index has.
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
    better: list[Moved] = field(default_factory=list)
    model: str = ""
    date: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    top_k: int = 2
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    reindexed: bool = False

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
            lines += ["", "Where it got worse, the answer's place before → after:"]
            for loss in self.worse:
                lines += [f"  {_place(loss)}  {loss.question}", f"{'':13}{loss.document[:90]}"]
        lines += ["", *(f"note: {note}" for note in self.notes)]
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        lines += [f"spent: {spent}"] if spent else []
        return "\n".join(lines).rstrip()

    def __repr__(self) -> str:
        gain = self.gains["ndcg@10"]
        verdict = "shown" if self.shown else "not shown"
        return f"AppReport({self.served!r}, {verdict}, ndcg@10 {gain.mean:+.4f}, n={gain.n})"

    def _repr_html_(self) -> str:
        return _page(self, whole=False)

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
            check_fields(cls, fields)
            fields["gains"] = gains_of(fields["gains"])
            fields["slices"] = {name: gains_of(part) for name, part in fields["slices"].items()}
            fields["ladder"] = [
                Rung(**{**rung, **gains_of({"gain": rung["gain"]})}) for rung in fields["ladder"]
            ]
            for name in ("worse", "better"):
                fields[name] = [Moved(**item) for item in fields.get(name, [])]
            return cls(**fields)

    def save_json(self, path: PathLike) -> None:
        """Write the report as JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2))

    @classmethod
    @plain_arguments
    def from_json(cls, path: PathLike) -> AppReport:
        """Load what `save_json` wrote."""
        return cls.from_dict(read_json(path, ArtifactError))

    def save_html(self, path: PathLike) -> None:
        """Write one HTML page that needs no other file: light, dark, and for print."""
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
        f"{asked}{known}; {report.milliseconds:.1f} ms more a query; index untouched"
        f"{', the documents in a second one' if report.reindexed else ''}."
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


def _page(report: AppReport, *, whole: bool = True) -> str:
    """The page; or, with `whole=False`, what a notebook shows."""
    gain = report.gains["ndcg@10"]
    took = f"took {duration(sum(report.seconds.values()))}" if report.seconds else ""
    slices = [(name, part["ndcg@10"]) for name, part in report.slices.items() if "ndcg@10" in part]
    return render(
        "app/report.html.j2",
        whole=whole,
        title="A tuned app",
        report=report,
        gain=gain,
        top=[
            ("Embedding model", report.model),
            ("Index", f"{report.counts['nodes']:,} nodes" if "nodes" in report.counts else ""),
            ("Measured on", f"{gain.n:,} {report.kind}, nested cross-fitting"),
            ("Questions", f"fingerprint {report.fingerprint[:12]}" if report.fingerprint else ""),
            ("When", ", ".join(filter(None, (readable_date(report.date), took)))),
        ],
        ladder=[(f"{r.name} (served)" if r.taken else r.name, r.gain) for r in report.ladder],
        slices=slices,
        reasons=[(rung.name, rung.reason) for rung in report.ladder if rung.reason],
        data=[(words(name), f"{count:,}") for name, count in report.counts.items()],
        seconds=[(words(step), duration(spent)) for step, spent in report.seconds.items()],
    )
