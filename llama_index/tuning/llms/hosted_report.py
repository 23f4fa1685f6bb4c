"""The report of a hosted job: what was measured, or that nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.tuning.evaluate.bootstrap import Gain, paired_gain
from llama_index.tuning.gate import MIN_SLICE, Accept, Verdict, decide
from llama_index.tuning.llms.evaluation import (
    SCORE,
    Evaluate,
    Peer,
    Scores,
    caller_scores,
    check_same_items,
    peer_gains,
    peer_scores,
)
from llama_index.tuning.llms.hosted_client import Server, closing_note
from llama_index.tuning.llms.hosted_file import JobEstimate
from llama_index.tuning.llms.hosted_llm import deploy_step
from llama_index.tuning.llms.hosted_options import JobOptions
from llama_index.tuning.report import FinetuneReport, Gains, installed_versions

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

UNIT = "items"

_NOT_MEASURED = (
    "nothing was measured: whether the tuned LLM is better is not known; evaluate= measures it "
    "against the base on held-out items"
)
_NOT_YET = (
    "nothing was measured yet: deploy the tuned model, pass its name as deployment= and call "
    "finetune() again"
)


@dataclass
class Measuring:
    """Scores of the base before the job, of the tuned LLM after it, and the verdict.

    Args:
        evaluate: scores held-out items; None: nothing decides.
        protect: abilities that must not be lost, each scored by its function.
        peers: what else the tuned LLM is compared with.
        accept: the gate's rule.
    """

    evaluate: Evaluate | None
    protect: Mapping[str, Evaluate]
    peers: Mapping[str, Peer]
    accept: Accept
    gains: Gains = field(default_factory=dict)
    guarded: dict[str, Gain] = field(default_factory=dict)
    against: dict[str, Gains] = field(default_factory=dict)
    _base: Scores = field(default_factory=dict)
    _peers: Scores = field(default_factory=dict)

    def before(self, base: LLM) -> None:
        """Score the base and its peers."""
        self._base = caller_scores(base, self.evaluate, self.protect)
        self._peers = peer_scores(self.peers, self.evaluate, self._base)

    def after(self, tuned: LLM) -> None:
        """Score the tuned LLM on the same items."""
        after = caller_scores(tuned, self.evaluate, self.protect)
        check_same_items(self._base, after)
        self.guarded = {name: paired_gain(self._base[name], after[name]) for name in after}
        self.gains = {SCORE: self.guarded.pop(SCORE)}
        self.against = peer_gains(self._peers, after)

    def verdict(self) -> Verdict:
        """Accepted, and why."""
        if self.evaluate is None:
            return Verdict(True, _NOT_MEASURED)
        if not self.gains:
            return Verdict(self.accept == "always", _NOT_YET)
        return decide(SCORE, self.gains[SCORE], self.guarded, accept=self.accept, unit=UNIT)


def hosted_report(
    options: JobOptions,
    server: Server,
    job: Any,
    measuring: Measuring,
    *,
    estimate: JobEstimate | None,
    history: list[dict[str, float]],
    seconds: float,
    deployed: bool,
) -> FinetuneReport:
    """Everything that is known when the job has succeeded."""
    verdict = measuring.verdict()
    data = {
        "job": job.id,
        "status": job.status,
        "server": server.address,
        "tuned_model": job.fine_tuned_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "trained_tokens": job.trained_tokens,
        "estimate": estimate.to_dict() if estimate else None,
    }
    notes = [closing_note(server)]
    for name, gain in measuring.guarded.items():
        if gain.n < MIN_SLICE:
            notes.append(f"{name} has {gain.n} items; the gate guards {MIN_SLICE} or more")
    if server.kind == "azure" and not deployed:
        notes.append(deploy_step(job.fine_tuned_model or "the tuned model"))
    elif not job.fine_tuned_model:
        notes.append("the job names no model: this server wants it deployed before it answers")
    times = {"all": round(seconds, 3)}
    if job.created_at and job.finished_at:
        times["job"] = float(job.finished_at - job.created_at)
    guarded = {name: {SCORE: gain} for name, gain in measuring.guarded.items()}
    return FinetuneReport(
        title=f"hosted {options.method} tuning of {options.model}",
        method="scored by evaluate=" if measuring.gains else "not measured",
        primary=SCORE if measuring.gains else "",
        gains=measuring.gains,
        slices=guarded | measuring.against,
        accepted=verdict.accepted,
        reason=verdict.reason,
        data={name: value for name, value in data.items() if value is not None},
        options=options.to_dict(),
        seed=options.seed or 0,
        seconds=times,
        history=history,
        notes=[note for note in notes if note],
        versions=installed_versions("openai"),
        unit=UNIT,
    )
