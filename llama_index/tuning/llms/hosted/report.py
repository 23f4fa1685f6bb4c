"""The report of a hosted job: what was measured, or that nothing was."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import MIN_SLICE, Accept, Verdict, decide
from llama_index.tuning.llms.evaluation import SCORE, Scores, check_same_items, peer_gains
from llama_index.tuning.llms.hosted.client import Server, closing_note
from llama_index.tuning.llms.hosted.model import deploy_step
from llama_index.tuning.llms.hosted.options import JobOptions
from llama_index.tuning.report import FinetuneReport, Gain, Gains, installed_versions

_UNIT = "items"
_NOT_MEASURED = (
    "nothing was measured: whether the tuned LLM is better is not known; evaluate= measures it "
    "against the base on held-out items"
)
_NOT_YET = (
    "nothing was measured yet: deploy the tuned model, pass its name as deployment= and call "
    "finetune() again"
)


def hosted_report(
    options: JobOptions,
    server: Server,
    job: Any,
    before: Scores,
    after: Scores,
    peers: Scores,
    *,
    accept: Accept,
    deployment: str | None,
    history: list[dict[str, float]],
    seconds: float,
) -> FinetuneReport:
    """Everything that is known when the job has succeeded.

    Args:
        options: how it was tuned.
        server: its address.
        job: as the server tells it.
        before: scores of the base, by name; empty if nothing is measured.
        after: those of the tuned LLM, of the same items; empty if it cannot answer yet.
        peers: scores of others that it is compared with.
        accept: the gate's rule.
        deployment: Azure's name for the tuned model.
        history: metrics that the job's events told.
        seconds: of the whole run.
    """
    gains: Gains = {}
    guarded: dict[str, Gain] = {}
    verdict = Verdict(accept == "always", _NOT_YET) if before else Verdict(True, _NOT_MEASURED)
    if after:
        check_same_items(before, after)
        guarded = {name: paired_gain(before[name], after[name]) for name in after}
        gains = {SCORE: guarded.pop(SCORE)}
        verdict = decide(SCORE, gains[SCORE], guarded, accept=accept, unit=_UNIT)
    data = {
        "job": job.id,
        "status": job.status,
        "server": server.address,
        "tuned_model": job.fine_tuned_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "trained_tokens": job.trained_tokens,
    }
    notes = [
        f"{name} has {gain.n} items; the gate guards {MIN_SLICE} or more"
        for name, gain in guarded.items()
        if gain.n < MIN_SLICE
    ]
    if note := closing_note(server):
        notes.append(note)
    if server.kind == "azure" and not deployment:
        notes.append(deploy_step(job.fine_tuned_model or "the tuned model"))
    elif not job.fine_tuned_model:
        notes.append("the job names no model: this server wants it deployed before it answers")
    slices = {name: {SCORE: gain} for name, gain in guarded.items()}
    return FinetuneReport(
        title=f"hosted {options.method} tuning of {options.model}",
        model=job.fine_tuned_model or options.model,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        method="scored by evaluate=" if gains else "not measured",
        primary=SCORE if gains else "",
        gains=gains,
        slices=slices | (peer_gains(peers, after) if after else {}),
        accepted=verdict.accepted,
        reason=verdict.reason,
        data={name: value for name, value in data.items() if value is not None},
        options=options.to_dict(),
        seed=options.seed or 0,
        seconds={"all": round(seconds, 3)},
        history=history,
        notes=notes,
        versions=installed_versions("openai"),
        unit=_UNIT,
    )
