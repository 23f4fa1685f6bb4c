"""A finished run as a report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.evaluate.routing import deferral_curve
from llama_index.tuning.gate import decide
from llama_index.tuning.report import installed_versions
from llama_index.tuning.routers.calibration import margin_for
from llama_index.tuning.routers.crossfit import NOISE_TO_ACT
from llama_index.tuning.routers.linear import FloatArray
from llama_index.tuning.routers.material import Material
from llama_index.tuning.routers.measuring import Measured, scope_summary
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.report import RouterReport
from llama_index.tuning.routers.run import Clock, Run, scores_of


def write_report(
    run: Run,
    material: Material,
    held_out: Material | None,
    measured: Measured,
    options: RouterOptions,
    clock: Clock,
    *,
    base_scores: FloatArray,
    deferred: NDArray[np.float64] | None,
) -> tuple[RouterReport, float]:
    """The report, and the margin for deferral that it recommends."""
    gains = measured.gains(base_scores, options.seed)
    verdict = decide("accuracy", gains["accuracy"], accept=options.accept)
    correct = measured.correct
    margin = run.model.margin
    if deferred is not None:
        margin = margin_for(measured.margins, correct, options.target_accuracy, deferred)
    scope, scope_note = _scope(run, material, held_out, measured, options)
    report = RouterReport(
        title="router",
        method=_method(run, held_out),
        primary="accuracy",
        gains=gains,
        accepted=verdict.accepted,
        reason=verdict.reason,
        data=_data(run, material, measured, margin),
        options=asdict(options),
        seed=options.seed,
        seconds=clock.seconds,
        notes=[*scope_note, *_notes(run, material, options)],
        versions=installed_versions("numpy", "scipy", "scikit-learn"),
        summary={**measured.summary(base_scores), **scope, "label_noise": run.noise},
        choices=list(material.dataset.choices),
        matrix=measured.matrix(),
        confusions=measured.confusions(),
        deferral=deferral_curve(measured.margins, correct, deferred),
    )
    return report, margin


def _method(run: Run, held_out: Material | None) -> str:
    if held_out is not None:
        return "validation queries"
    return "cross-fitting"


def _scope(
    run: Run,
    material: Material,
    held_out: Material | None,
    measured: Measured,
    options: RouterOptions,
) -> tuple[dict[str, float], list[str]]:
    """Out-of-scope figures: on out-of-scope examples, else on choices held out."""
    inside = measured.logits.max(axis=1)
    passing = {"in_scope_recall": float((inside >= run.model.threshold).mean())}
    for data in (held_out, material):
        if data is not None and len(data.out_of_scope):
            outside = scores_of(run, data, data.out_of_scope).max(axis=1)
            note = f"out of scope: {len(outside)} examples that no router trained on"
            return {**scope_summary(inside, outside, options.in_scope_recall), **passing}, [note]
    found = scope_summary(run.held_out.inside, run.held_out.outside, options.in_scope_recall)
    note = "out of scope: queries of choices that were held out of the training for it"
    return {**found, **passing}, [note] if found else []


def _notes(run: Run, material: Material, options: RouterOptions) -> list[str]:
    notes = []
    conflicts = material.dataset.conflicts()
    if conflicts:
        notes.append(f"{len(conflicts)} queries occur with different choices")
    if run.noise >= NOISE_TO_ACT:
        if run.setting.doubting:
            act = "they count less"
        elif options.robust:
            act = "counting them less did not help"
        else:
            act = "robust=True would count them less, where that helps"
        notes.append(f"about {run.noise:.0%} of the labels look wrong; {act}")
    few = [name for name, count in material.dataset.class_counts().items() if count < 3]
    if few:
        notes.append(f"{len(few)} choices have fewer than 3 examples: {', '.join(few[:5])}")
    return notes


def _data(run: Run, material: Material, measured: Measured, margin: float) -> dict[str, Any]:
    counts = list(material.dataset.class_counts().values())
    return {
        "examples": len(material.dataset),
        "out_of_scope": len(material.out_of_scope),
        "choices": material.choices,
        "smallest_choice": min(counts),
        "largest_choice": max(counts),
        "measured": len(measured.examples),
        "fingerprint": material.dataset.fingerprint(),
        "tau": run.setting.tau,
        "words": run.setting.words,
        "described": run.setting.described,
        "doubting": run.setting.doubting,
        "threshold": run.model.threshold,
        "margin": margin,
        "several": run.model.several,
    }
