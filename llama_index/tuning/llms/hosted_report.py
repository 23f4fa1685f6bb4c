"""The report of a hosted job: what was measured, or that nothing was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
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
from llama_index.tuning.llms.hosted_estimate import JobEstimate
from llama_index.tuning.llms.hosted_llm import deploy_step
from llama_index.tuning.llms.hosted_options import JobOptions
from llama_index.tuning.report import FinetuneReport, Gains, installed_versions

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


UNIT = "items"


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

    def before(self, base: Callable[[], LLM]) -> None:
        """Score the base and its peers; `base` is only called where there is something to score."""
        if self.evaluate is not None:
            self._base = caller_scores(base(), self.evaluate, self.protect)
            self._peers = peer_scores(self.peers, self.evaluate, self._base)

    def after(self, tuned: Callable[[], LLM]) -> None:
        """Score the tuned LLM on the same items."""
        if self.evaluate is None:
            return
        after = caller_scores(tuned(), self.evaluate, self.protect)
        check_same_items(self._base, after)
        found = {name: paired_gain(self._base[name], after[name]) for name in after}
        self.gains = {SCORE: found.pop(SCORE)}
        self.guarded = found
        self.against = peer_gains(self._peers, after)

    def verdict(self, job: Any) -> Verdict:
        """Accepted, and why."""
        if job.status != "succeeded":
            return Verdict(False, f"job {job.id} is {job.status}; call finetune() again")
        if self.evaluate is None:
            return Verdict(
                True,
                "nothing was measured: whether the tuned LLM is better is not known; "
                "evaluate= measures it against the base on held-out items",
            )
        if not self.gains:
            return Verdict(
                self.accept == "always",
                "nothing was measured yet: finetune() waits for the job, and the tuned model must "
                "be deployed where the server wants that",
            )
        return decide(SCORE, self.gains[SCORE], self.guarded, accept=self.accept, unit=UNIT)

    def notes(self) -> list[str]:
        """What a reader should know of the protected abilities."""
        return [
            f"{name} has {gain.n} items; the gate guards {MIN_SLICE} or more"
            for name, gain in self.guarded.items()
            if gain.n < MIN_SLICE
        ]


def hosted_report(
    options: JobOptions,
    server: Server,
    job: Any,
    measuring: Measuring,
    *,
    estimate: JobEstimate | None,
    history: list[dict[str, float]],
    seconds: float,
    needs_deployment: bool,
) -> FinetuneReport:
    """Everything that is known at the end."""
    verdict = measuring.verdict(job)
    data = {
        "job": job.id,
        "status": job.status,
        "server": server.address,
        "tuned_model": job.fine_tuned_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "trained_tokens": job.trained_tokens,
    }
    if estimate is not None:
        data["estimate"] = estimate.to_dict()
    return FinetuneReport(
        title=f"hosted {options.method} tuning of {options.model}",
        method="scored by evaluate=" if measuring.gains else "not measured",
        primary=SCORE if measuring.gains else "",
        gains=measuring.gains,
        slices={
            **{name: {SCORE: gain} for name, gain in measuring.guarded.items()},
            **measuring.against,
        },
        accepted=verdict.accepted,
        reason=verdict.reason,
        data={name: value for name, value in data.items() if value is not None},
        options=options.to_dict(),
        seed=options.seed or 0,
        seconds={"all": seconds, **_job_seconds(job)},
        history=history,
        notes=[*measuring.notes(), *_notes(server, job, needs_deployment)],
        versions=installed_versions("openai"),
        unit=UNIT,
    )


def _job_seconds(job: Any) -> dict[str, float]:
    if not job.created_at or not job.finished_at:
        return {}
    return {"job": float(job.finished_at - job.created_at)}


def _notes(server: Server, job: Any, needs_deployment: bool) -> list[str]:
    notes = [note] if (note := closing_note(server)) else []
    finish = getattr(job, "estimated_finish", None)
    if finish and job.status not in ("succeeded", "failed", "cancelled"):
        when = datetime.fromtimestamp(finish, timezone.utc).isoformat(timespec="minutes")
        notes.append(f"the server expects the job to finish at {when}")
    if job.status == "succeeded" and needs_deployment:
        notes.append(deploy_step(job.fine_tuned_model or "the tuned model"))
    elif job.status == "succeeded" and not job.fine_tuned_model:
        notes.append("the job names no model: this server wants it deployed before it answers")
    return notes
