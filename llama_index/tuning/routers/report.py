"""The report of a router: what every report has, and what only routers have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.evaluate.routing import Confusion, DeferralPoint
from llama_index.tuning.report import FinetuneReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class RouterReport(FinetuneReport):
    """What a router gained over the stock selector, and how far it knows its limits.

    Attributes:
        summary: `macro_f1_base`, `macro_f1`, `calibration_error`, `out_of_scope_recall` (at the
            deployed in-scope recall), `auroc`, `in_scope_recall`, `label_noise`.
        choices: names, in the order of `matrix`.
        matrix: queries of each choice (row) by where they went (column).
        confusions: the ten most frequent wrong turns, with queries.
        deferral: accuracy against the share of queries handed to another selector.
    """

    summary: dict[str, float] = field(default_factory=dict)
    choices: list[str] = field(default_factory=list)
    matrix: list[list[int]] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    deferral: list[DeferralPoint] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [super().__str__(), ""]
        lines += [f"  {name:<22}{value:>8.4f}" for name, value in self.summary.items()]
        if self.deferral:
            lines += ["", "  handed over   kept right   all right"]
        for point in self.deferral:
            every = "" if point.accuracy is None else f"{point.accuracy:12.3f}"
            lines.append(f"  {point.share:>11.0%}{point.kept_accuracy:13.3f}{every}")
        if self.confusions:
            lines += ["", "  most frequent wrong turns"]
        for turn in self.confusions:
            query = turn.queries[0][:60] if turn.queries else ""
            lines.append(f"  {turn.count:>4}  {turn.true} → {turn.predicted}: {query!r}")
        return "\n".join(lines).rstrip()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RouterReport:
        """The report that `to_dict` gave."""
        fields = dict(data)
        fields["confusions"] = [Confusion(**item) for item in fields["confusions"]]
        fields["deferral"] = [DeferralPoint(**item) for item in fields["deferral"]]
        found = super().from_dict(fields)
        assert isinstance(found, cls)
        return found

    def plot_confusion(self) -> Figure:
        """The confusion matrix: a row for each choice, each row's shares by colour.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as exc:
            raise MissingExtraError("plot_confusion()", "matplotlib", "plots") from exc
        import numpy as np

        counts = np.array(self.matrix, dtype=float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        side = max(4.0, 0.16 * len(self.choices))
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        panel = figure.subplots()
        image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        size = 8 if len(self.choices) <= 30 else 5
        panel.set_xticks(range(len(self.choices)), self.choices, rotation=90, fontsize=size)
        panel.set_yticks(range(len(self.choices)), self.choices, fontsize=size)
        panel.set_xlabel("went to")
        panel.set_ylabel("belongs to")
        figure.colorbar(image, ax=panel, fraction=0.03)
        return figure
