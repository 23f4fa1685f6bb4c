"""The report of a router: what every report has, what only routers have, and a run as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.evaluate.routing import Confusion, DeferralPoint, deferral_curve
from llama_index.tuning.report import FinetuneReport, report_faults
from llama_index.tuning.routers.calibrate import margin_for
from llama_index.tuning.routers.cross_fit import NOISE_TO_ACT
from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.measure import Measured, scope_summary
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.run import Run, scores_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FREQUENCIES = "over the choices' frequencies"


@dataclass(frozen=True, kw_only=True, repr=False)
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
        with report_faults():
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


def write_report(
    run: Run,
    data: RouterData,
    held_out: RouterData | None,
    measured: Measured,
    options: RouterOptions,
    *,
    base_scores: Float32,
    deferred: NDArray[np.float64] | None,
) -> tuple[RouterReport, float]:
    """The report, without a verdict, and the margin for deferral that it recommends."""
    correct = measured.correct
    margin = run.model.margin
    if deferred is not None:
        margin = margin_for(measured.margins, correct, options.target_accuracy, deferred)
    scope, scope_note = _scope(run, data, held_out, measured, options)
    report = RouterReport(
        title="router",
        method="cross-fitting" if held_out is None else "validation queries",
        model=run.model.base_model,
        primary="accuracy",
        gains=measured.gains(base_scores, options.seed),
        slices={FREQUENCIES: {"accuracy": measured.over_frequencies(options.seed)}},
        also_shown=[FREQUENCIES],
        data=_data(run, data, measured, margin),
        options=asdict(options),
        seed=options.seed,
        notes=[*scope_note, *_notes(run, data, options)],
        summary={**measured.summary(base_scores), **scope, "label_noise": run.noise},
        choices=list(data.dataset.choices),
        queries=measured.changed(base_scores),
        matrix=measured.matrix(),
        confusions=measured.confusions(),
        deferral=deferral_curve(measured.margins, correct, deferred),
    )
    return report, margin


def _scope(
    run: Run,
    data: RouterData,
    held_out: RouterData | None,
    measured: Measured,
    options: RouterOptions,
) -> tuple[dict[str, float], list[str]]:
    """Out-of-scope figures: on out-of-scope examples, else on choices held out."""
    inside = measured.logits.max(axis=1)
    passing = {"in_scope_recall": float((inside >= run.model.threshold).mean())}
    for given in (held_out, data):
        if given is not None and len(given.out_of_scope):
            outside = scores_of(run, given, given.out_of_scope).max(axis=1)
            note = f"out of scope: {len(outside)} examples that no router trained on"
            return {**scope_summary(inside, outside, options.in_scope_recall), **passing}, [note]
    found = scope_summary(run.held_out.inside, run.held_out.outside, options.in_scope_recall)
    note = "out of scope: queries of choices that were held out of the training for it"
    return {**found, **passing}, [note] if found else []


def _notes(run: Run, data: RouterData, options: RouterOptions) -> list[str]:
    notes = []
    conflicts = data.dataset.conflicts()
    if conflicts:
        notes.append(f"{len(conflicts)} queries occur with different choices")
    if run.noise >= NOISE_TO_ACT:
        if run.setting.noise_robust:
            act = "they count less"
        elif options.robust:
            act = "counting them less did not help"
        else:
            act = "robust=True would count them less, if that helps"
        notes.append(f"about {run.noise:.0%} of the labels look wrong; {act}")
    few = [name for name, count in data.dataset.class_counts().items() if count < 3]
    if few:
        notes.append(f"{len(few)} choices have fewer than 3 examples: {', '.join(few[:5])}")
    return notes


def _data(run: Run, data: RouterData, measured: Measured, margin: float) -> dict[str, Any]:
    counts = list(data.dataset.class_counts().values())
    return {
        "examples": len(data.dataset),
        "out_of_scope": len(data.out_of_scope),
        "choices": data.choices,
        "smallest_choice": min(counts),
        "largest_choice": max(counts),
        "measured": len(measured.examples),
        "fingerprint": data.dataset.fingerprint(),
        "tau": run.setting.tau,
        "words": run.setting.words,
        "described": run.setting.described,
        "noise_robust": run.setting.noise_robust,
        "threshold": run.model.threshold,
        "margin": margin,
        "several": run.model.several,
    }
