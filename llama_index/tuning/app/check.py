"""Whether an app that is served still does what was promised: on new questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import number
from llama_index.tuning._running import own_work
from llama_index.tuning.app.ladder.choose import PRIMARY
from llama_index.tuning.app.questions import check_telling, of_app, read_questions
from llama_index.tuning.app.report import AppReport, Moved, moved
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import RetrievalScores, score_rankings
from llama_index.tuning.gate import MIN_QUERIES
from llama_index.tuning.report import Gain, Gains
from llama_index.tuning.vectors.embedder import Embedder

Verdict = Literal["better", "no worse", "worse", "too few"]
DEPTH = 10
SHOWN = (PRIMARY, "mrr@10", "hit_rate@1", "hit_rate@5")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """An app on new questions.

    Attributes:
        verdict: `"worse"` if a loss beyond `max_loss` is shown; `"too few"` below ten questions.
        gains: metric → the app served against the app before.
        promised: nDCG@10 as it was measured when the app was tuned; `None` without questions then,
            since sentences of the documents promise nothing.
        max_loss: that is no regression yet.
        worse: the questions that lost most.
        better: the questions that gained most.
        notes: what was done to the questions.
    """

    verdict: Verdict
    gains: Gains
    promised: Gain | None
    max_loss: float
    worse: list[Moved]
    better: list[Moved]
    notes: list[str]

    @property
    def regressed(self) -> bool:
        """Whether the app served is shown to be worse than the app before."""
        return self.verdict == "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        gain = self.gains[PRIMARY]
        return f"CheckResult({self.verdict!r}, {PRIMARY} {gain.mean:+.4f}, n={gain.n})"

    def __str__(self) -> str:
        gain, told = self.gains[PRIMARY], self.promised
        lines = [
            f"{self.verdict}: {PRIMARY} {gain.base:.3f} → {gain.tuned:.3f}, {gain.mean:+.3f} "
            f"({gain.confidence:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}, n={gain.n})",
            f"promised: {told.mean:+.3f} ({told.low:+.3f} to {told.high:+.3f}, n={told.n})"
            if told
            else "promised: nothing, without questions; tune with these to see what more there is",
        ]
        if told and gain.high < told.low:
            lines.append("the gain is smaller than promised: the questions have changed; tune anew")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@own_work
def check(
    seen: SeenApp,
    served: BaseRetriever,
    report: AppReport,
    questions: Any,
    max_loss: float,
    vectors_of: Callable[[RetrievalDataset, Float32 | None], Float32 | None],
) -> CheckResult:
    """What `served` is worth on new questions; see `TunedApp.check`.

    Args:
        seen: the app before.
        served: its tuned retriever, of `DEPTH` nodes.
        report: of the tuning, with what was promised.
        questions: as in `tune_app`.
        max_loss: of nDCG@10 that is no regression yet.
        vectors_of: questions' vectors for the served retriever, from the app's own.
    """
    max_loss = number("max_loss", max_loss, 0, 1)
    dataset, notes = read(seen, questions)
    check_telling(dataset)
    vectors = embedded(seen.embed_model, dataset)  # each question once, for both
    before = measured(seen.copied_retriever(DEPTH), dataset, vectors)
    now = measured(served, dataset, vectors_of(dataset, vectors))
    gains = {
        name: paired_gain(before.values[name], now.values[name], seed=report.seed) for name in SHOWN
    }
    verdict = _verdict(gains[PRIMARY], max_loss)
    worse, better = moved(dataset, seen.nodes, before, now)
    return CheckResult(
        verdict=verdict,
        gains=gains,
        promised=None if report.kind == "stand-ins" else report.gains[PRIMARY],
        max_loss=max_loss,
        worse=worse,
        better=better,
        notes=notes,
    )


def _verdict(gain: Gain, max_loss: float) -> Verdict:
    if gain.n < MIN_QUERIES:
        return "too few"
    if gain.high < 0 and gain.mean < -max_loss:
        return "worse"
    return "better" if gain.low > 0 else "no worse"


def read(seen: SeenApp, questions: Any) -> tuple[RetrievalDataset, list[str]]:
    """Questions over an app's nodes, each text once; and what was done to them."""
    notes: list[str] = []
    dataset = of_app(read_questions(questions, seen, notes), seen, "questions", notes)
    return dataset.merge_duplicates(), notes


def embedded(model: BaseEmbedding | None, dataset: RetrievalDataset) -> Float32 | None:
    """The questions' vectors by a model; `None` without one."""
    return None if model is None else Embedder(model).queries(list(dataset.queries.values()))


def measured(
    retriever: BaseRetriever, dataset: RetrievalDataset, vectors: Float32 | None
) -> RetrievalScores:
    """What a retriever finds, asked as the app asks it."""
    ids = list(dataset.queries)
    found = []
    for row, text in enumerate(dataset.queries.values()):
        bundle = QueryBundle(text, embedding=None if vectors is None else vectors[row].tolist())
        nodes = retriever.retrieve(bundle)
        found.append(list(dict.fromkeys(item.node.node_id for item in nodes)))
    return score_rankings(ids, found, [dataset.relevant_docs[id_] for id_ in ids])


def compare(one: RetrievalScores, other: RetrievalScores) -> Gains:
    """The second of two apps against the first, on the questions that both were asked.

    Raises:
        DatasetError: there are none.
    """
    rows = {id_: row for row, id_ in enumerate(one.query_ids)}
    both = [(rows[id_], row) for row, id_ in enumerate(other.query_ids) if id_ in rows]
    if not both:
        raise DatasetError("the two apps have no question in common whose answer both hold")
    left, right = (list(side) for side in zip(*both, strict=True))
    return {name: paired_gain(one.values[name][left], other.values[name][right]) for name in SHOWN}
