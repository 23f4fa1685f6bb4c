"""What a report says of the training on all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from llama_index.tuning.embeddings.full.data import Parts
from llama_index.tuning.report import FinetuneReport


@dataclass(frozen=True)
class Refitted:
    """What came of it.

    Attributes:
        pairs: it learnt from.
        steps: it made.
        decided: nDCG@10 on the deciding queries of the model that had not learnt them.
        score: that of the refitted model, which had.
        kept: whether the refitted model took the other's place.
    """

    pairs: int
    steps: int
    decided: float
    score: float
    kept: bool


def with_refit(
    report: FinetuneReport, found: Refitted, parts: Parts, seconds: Mapping[str, float]
) -> FinetuneReport:
    """The report, with what the saved model is."""
    return replace(
        report,
        data={**report.data, "refit": asdict(found)},
        seconds=dict(seconds),
        notes=[_note(found, parts), *report.notes],
    )


def _note(found: Refitted, parts: Parts) -> str:
    told = f"{found.pairs} pairs ({found.steps} steps)"
    if not found.kept:
        return (
            f"the model that was trained once more, on all {told}, is not kept: it ranks the "
            f"deciding queries, which it learnt, at {found.score:.4f} nDCG@10, and the model "
            f"that never saw them at {found.decided:.4f}"
        )
    if parts.refit == "before measuring":
        return f"measured and saved is the model that was trained once more, on all {told}"
    return (
        "measured on the model that was trained without the measured queries; what is saved is "
        f"trained once more in the same way, on all {told}"
    )
