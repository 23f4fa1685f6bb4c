"""What a run of the local LLM engine came to: gains, verdict, report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from llama_index.tuning.evaluate.bootstrap import Gain, paired_gain
from llama_index.tuning.gate import MIN_SLICE, Accept, decide
from llama_index.tuning.llms.evaluation import SCORE, Scores, check_same_items, peer_gains
from llama_index.tuning.llms.measuring import LIKELIHOOD, PREFERENCE
from llama_index.tuning.llms.options import HuggingFaceOptions
from llama_index.tuning.llms.plan import Plan
from llama_index.tuning.llms.training import Trained
from llama_index.tuning.report import FinetuneReport, installed_versions

LIBRARIES = ("torch", "transformers", "trl", "peft")


def likelihood_of(options: HuggingFaceOptions) -> str:
    """The name of what held-out conversations are measured by."""
    return PREFERENCE if options.method == "dpo" else LIKELIHOOD


def write_report(
    plan: Plan,
    trained: Trained,
    before: Scores,
    after: Scores,
    peers: Scores,
    *,
    options: HuggingFaceOptions,
    protected: Collection[str],
    accept: Accept,
    seconds: dict[str, float],
) -> FinetuneReport:
    """Base against tuned, what is protected, and the gate's verdict.

    Args:
        plan: of the run.
        trained: the tuned model and its curve.
        before: scores of the base, by name.
        after: those of the tuned model, of the same items.
        peers: scores of others that it is compared with.
        options: how it was trained.
        protected: names of the scores that must not fall.
        accept: the gate's rule.
        seconds: of the parts of the run.
    """
    check_same_items(before, after)
    gains = {name: paired_gain(before[name], after[name]) for name in before}
    guarded = {name: gains.pop(name) for name in protected}
    likelihood = likelihood_of(options)
    primary = SCORE if SCORE in gains else likelihood
    unit = "items" if primary == SCORE else "conversations"
    verdict = decide(primary, gains[primary], guarded, accept=accept, unit=unit)
    slices = {name: {SCORE: gain} for name, gain in guarded.items()}
    slices |= peer_gains(peers, after)
    if primary == SCORE and likelihood in gains:  # of other items, a table of its own
        slices["held-out conversations"] = {likelihood: gains.pop(likelihood)}
    return FinetuneReport(
        title=_title(plan, options),
        method="scored by evaluate=" if primary == SCORE else "held-out conversations",
        primary=primary,
        gains=gains,
        slices=slices,
        accepted=verdict.accepted,
        reason=verdict.reason,
        data={"fingerprint": plan.train.fingerprint(), **plan.preflight.to_dict()},
        options={**asdict(options), "learning_rate": options.learning_rate_used},
        seed=options.seed,
        seconds=seconds,
        history=trained.history,
        notes=[*trained.notes, *plan.preflight.warnings, *_forgotten(guarded)],
        versions=installed_versions(*LIBRARIES),
        unit=unit,
    )


def _title(plan: Plan, options: HuggingFaceOptions) -> str:
    how = f"LoRA rank {options.lora_rank}"
    weights = how if options.weights == "lora" else "all weights"
    return f"LLM {Path(plan.source.name).name} ({options.method.upper()}, {weights})"


def _forgotten(guarded: Mapping[str, Gain]) -> list[str]:
    """What a reader should know of the protected abilities."""
    notes = []
    for name, gain in guarded.items():
        if gain.high < 0:
            notes.append(
                f"{name}: {-gain.mean:.3f} was forgotten, from {gain.base:.3f} to {gain.tuned:.3f}"
            )
        if gain.n < MIN_SLICE:
            notes.append(f"{name} has {gain.n} items; the gate guards {MIN_SLICE} or more")
    return notes
