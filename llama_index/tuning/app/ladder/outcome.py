"""What is served after the ladder, and the report of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from llama_index.tuning.app.ladder.choose import BEFORE, PRIMARY, Stack, slices
from llama_index.tuning.app.ladder.measure import Measured
from llama_index.tuning.app.parts.served import REINDEXED
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.app.report import AppReport, Rung, moved
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.base import Clock
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import decide
from llama_index.tuning.report import installed_versions
from llama_index.tuning.vectors.identity import base_name

SHOWN = (PRIMARY, "mrr@10", "hit_rate@1", "hit_rate@5", "hit_rate@10")


@dataclass(frozen=True)
class Outcome:
    stack: Stack
    shown: bool
    reason: str


def decided(measured: Measured, asked: Questions, seed: int) -> Outcome:
    """The stack to serve: the ladder's, if the choice as a whole holds against the app before."""
    before = measured.scores[BEFORE].values[PRIMARY]
    served = measured.served.values[PRIMARY]
    gain = paired_gain(before, served, seed=seed)
    seen = asked.seen[measured.rows]
    verdict = decide(PRIMARY, gain, slices(before, served, seen, seed))
    real = asked.kind != "stand-ins"
    stack = measured.stack
    if stack == BEFORE:
        last = measured.steps[-1].reason if measured.steps else "nothing else could be tried"
        return Outcome(stack, False, last)
    if verdict.accepted and real:
        return Outcome(stack, True, verdict.reason)
    taken = [step for step in measured.steps if step.taken]
    safe = [step for step in taken if not step.luck]
    if taken[-1].luck:
        stack = safe[-1].stack if safe else BEFORE
    why = safe[-1].reason if safe else verdict.reason
    return Outcome(stack, False, why)


def report_of(
    seen: SeenApp,
    asked: Questions,
    measured: Measured,
    outcome: Outcome,
    cost: Mapping[str, float],
    clock: Clock,
    seed: int,
    prose: bool,
) -> AppReport:
    before = measured.scores[BEFORE]
    served = measured.served if outcome.stack == measured.stack else measured.scores[outcome.stack]
    gains = {
        name: paired_gain(before.values[name], served.values[name], seed=seed) for name in SHOWN
    }
    seen_rows = asked.seen[measured.rows]
    parts = slices(before.values[PRIMARY], served.values[PRIMARY], seen_rows, seed)
    notes = [*seen.notes, *asked.notes, *measured.notes]
    if not prose:
        notes.append(
            "the documents are hardly prose, or of a language whose stop words are not known here: "
            "words must show their gain"
        )
    if asked.kind == "stand-ins":
        notes.append(
            "sentences of the documents stood in for questions and say little about them: "
            "twenty real questions with their answers would decide it"
        )
    worse, better = moved(asked.dataset, seen.nodes, before, served)
    return AppReport(
        served=str(outcome.stack),
        kind=asked.kind,
        changed=outcome.stack != BEFORE,
        shown=outcome.shown,
        reason=outcome.reason,
        gains=gains,
        slices={name: {PRIMARY: gain} for name, gain in parts.items()},
        ladder=_ladder(measured, outcome, cost, seed),
        worse=worse,
        better=better,
        model="" if seen.embed_model is None else base_name(seen.embed_model),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        counts={
            "nodes": len(seen.nodes),
            "questions": len(asked),
            "measured": len(measured.rows),
            "folds": len(measured.chosen),
        },
        top_k=seen.top_k,
        seconds={name: round(value, 1) for name, value in clock.seconds.items()},
        notes=notes,
        seed=seed,
        fingerprint=asked.dataset.fingerprint(),
        versions=installed_versions("torch", "numpy"),
        reindexed=outcome.stack.vectors in REINDEXED,
    )


def _ladder(
    measured: Measured, outcome: Outcome, cost: Mapping[str, float], seed: int
) -> list[Rung]:
    reasons = {step.stack: step.reason for step in measured.steps}
    before = measured.scores[BEFORE].values[PRIMARY]
    return [
        Rung(
            name=str(stack),
            values={name: float(scores.values[name].mean()) for name in SHOWN},
            gain=paired_gain(before, scores.values[PRIMARY], seed=seed),
            milliseconds=cost[stack.order],
            taken=stack == outcome.stack,
            reason=reasons.get(stack, ""),
        )
        for stack, scores in measured.scores.items()
    ]
