"""`judge label`, `agreement`, `tune`, `evaluate` and `estimate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index.tuning._files import read_json_lines
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.cli import engines, models, tune
from llama_index.tuning.cli.common import (
    API_BASE,
    JSON,
    JUDGE_MODEL,
    JUDGMENTS,
    LLM_HELP,
    SEED,
    console,
    keep_run,
    print_gains,
    print_json,
)
from llama_index.tuning.datasets.formats.judgments import samples_of
from llama_index.tuning.datasets.judgments import JudgmentDataset

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator

    from llama_index.tuning.judges.judge import TunedJudge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
tune.add(app, engines.JUDGE)

TEACHERS = {
    "answer-relevancy": "AnswerRelevancyEvaluator",
    "context-relevancy": "ContextRelevancyEvaluator",
    "correctness": "CorrectnessEvaluator",
    "faithfulness": "FaithfulnessEvaluator",
    "guideline": "GuidelineEvaluator",
    "pairwise": "PairwiseComparisonEvaluator",
    "relevancy": "RelevancyEvaluator",
}

_JUDGE = typer.Option(..., help="Folder of a tuned judge.", exists=True)


@app.command("label")
def label(
    samples: Path = typer.Argument(
        help="JSON Lines of query, response, contexts, reference, second_response; a verdict in "
        "them is not looked at.",
        exists=True,
    ),
    teacher: str = typer.Option(..., help=f"One of: {', '.join(TEACHERS)}."),
    llm: str = typer.Option(..., help=LLM_HELP),
    out: Path = typer.Option(..., help="JSON Lines file; a run file lies beside it."),
    api_base: str | None = API_BASE,
    guidelines: str | None = typer.Option(None, help="Text, for the teacher guideline."),
    both_orders: bool = typer.Option(False, help="Judge each pair in both orders."),
    max_calls: int | None = typer.Option(None, help="Evaluations that may be begun."),
    dry_run: bool = typer.Option(False, help="Ask nothing, say what it would take."),
    tokens_per_reply: int = typer.Option(100, help="For --dry-run."),
    prompt_price: float = typer.Option(0.0, help="For --dry-run, of a million prompt tokens."),
    reply_price: float = typer.Option(0.0, help="For --dry-run, of a million reply tokens."),
    num_workers: int = typer.Option(8, help="Concurrent evaluations."),
    retry_limit: int = typer.Option(5, help="How often one evaluation may fail."),
    json: bool = JSON,
) -> None:
    """Let a LlamaIndex evaluator with a large LLM judge answers.

    Started again after an error or a kill, it goes on where it was.
    """
    from llama_index.tuning.judges.label import label_judgments

    rows = [row for _, row in read_json_lines(samples)]
    keep_run(out)
    language_model = models.language_model(llm, api_base, temperature=0.0)
    priced = bool(prompt_price or reply_price)
    found = label_judgments(
        rows,
        _teacher(teacher, language_model, guidelines, both_orders),
        output_path=out,
        run=RunOptions(
            num_workers=num_workers,
            retry_limit=retry_limit,
            max_calls=max_calls,
            show_progress=not json,
        ),
        both_orders=both_orders,
        dry_run=dry_run,
        tokens_per_reply=tokens_per_reply,
        prices=(prompt_price, reply_price) if priced else None,
    )
    if found.estimate is not None:
        if json:
            print_json(found.estimate.to_dict())
        else:
            console.print(str(found.estimate), soft_wrap=True)
        return
    if json:
        failed = [failure.to_dict() for failure in (*found.invalid, *found.failures)]
        print_json({**found.counts, "failed": failed})
        return
    for name, count in found.counts.items():
        console.print(f"{name:<14}{count}")
    for failure in (*found.invalid, *found.failures)[:10]:
        console.print(f"{failure.id}: {failure.message}", markup=False, soft_wrap=True)
    console.print(f"written to {out}", soft_wrap=True)


@app.command("agreement")
def agreement(
    data: Path = JUDGMENTS,
    json: bool = JSON,
) -> None:
    """How far the sources of verdicts agree, and how often a pair's order turns them."""
    from llama_index.tuning.datasets.judgments import sources_in_both_orders, sources_in_common

    dataset = JudgmentDataset.from_jsonl(data)
    found = {
        f"{first or 'no source'} / {second or 'no source'}": dataset.agreement(first, second)
        for first, second in sources_in_common(dataset)
    }
    orders = {
        source or "no source": dataset.agreement_of_orders(source)
        for source in sources_in_both_orders(dataset)
    }
    if json:
        print_json(
            {
                "judgments": len(dataset),
                "sources": {name: value.to_dict() for name, value in found.items()},
                "orders": {
                    name: {**value.to_dict(), "flip_rate": value.flip_rate}
                    for name, value in orders.items()
                },
            }
        )
        return
    console.print(f"n={len(dataset)}, sources: {', '.join(map(repr, dataset.sources()))}")
    for name, value in found.items():
        console.print(f"{name}: {value}", markup=False, soft_wrap=True)
    for name, value in orders.items():
        text = f"{name}: flip rate {value.flip_rate:.3f} over {value.n} pairs in both orders"
        console.print(text, markup=False, soft_wrap=True)
    if not found and not orders:
        console.print("no item was judged twice")


@app.command("evaluate")
def evaluate(
    data: Path = JUDGMENTS,
    judge: Path = _JUDGE,
    model: str = JUDGE_MODEL,
    passing_score: float | None = typer.Option(
        None, help="A verdict that is a score only passes from this one on."
    ),
    json: bool = JSON,
) -> None:
    """Measure how far a tuned judge agrees with verdicts, beside the most frequent one."""
    import numpy as np

    from llama_index.tuning.judges.data import judge_data_of
    from llama_index.tuning.judges.measure import agreement_gains
    from llama_index.tuning.judges.options import JudgeOptions

    dataset = JudgmentDataset.from_jsonl(data)
    verdicts = judge_data_of(dataset, JudgeOptions(passing_score=passing_score), "DATA")
    tuned = tuned_judge(judge, model)
    seen = len(set(verdicts.keys) & set(tuned.training_keys))
    values, counts = np.unique(verdicts.labels, return_counts=True)
    gains = agreement_gains(
        verdicts.labels,
        np.full(len(verdicts.labels), values[counts.argmax()]),
        tuned.model.rule.verdicts(tuned.probabilities(verdicts.items)),
        verdicts.clusters,
    )
    if json:
        measured = {name: asdict(gain) for name, gain in gains.items()}
        print_json({"judgments": len(verdicts.items), "trained_on": seen, "gains": measured})
        return
    print_gains(f"n={len(verdicts.items)}; base: the most frequent verdict", gains)
    if seen:
        console.print(f"note: the judge was trained on {seen} of these items", soft_wrap=True)


@app.command("estimate")
def estimate(
    unlabelled: Path = typer.Argument(help="JSON Lines: the app's other answers.", exists=True),
    labelled: Path = typer.Argument(help="JSON Lines: answers with people's passing.", exists=True),
    judge: Path = _JUDGE,
    confidence: float = typer.Option(0.95, help="Level of the interval."),
    seed: int = SEED,
    model: str = JUDGE_MODEL,
    json: bool = JSON,
) -> None:
    """Estimate an app's pass rate from a judge on many answers and labels on a few."""
    from llama_index.tuning.judges.pass_rates.estimate import estimate_pass_rate

    found = estimate_pass_rate(
        tuned_judge(judge, model),
        samples_of(row for _, row in read_json_lines(unlabelled)),
        JudgmentDataset.from_jsonl(labelled),
        confidence=confidence,
        seed=seed,
    )
    if json:
        print_json(found.to_dict())
    else:
        console.print(str(found), markup=False, soft_wrap=True)


def _teacher(name: str, llm: Any, guidelines: str | None, both_orders: bool) -> BaseEvaluator:
    from llama_index.core import evaluation

    if name not in TEACHERS:
        raise ValueError(f"unknown --teacher {name!r}; choose one of: {', '.join(TEACHERS)}")
    if guidelines is not None and name != "guideline":
        raise ValueError("the option --guidelines belongs to --teacher guideline")
    if both_orders and name != "pairwise":
        raise ValueError("the option --both-orders belongs to --teacher pairwise")
    options: dict[str, Any] = {}
    if guidelines is not None:
        options["guidelines"] = guidelines
    if name == "pairwise":
        options["enforce_consensus"] = not both_orders
    teacher: BaseEvaluator = getattr(evaluation, TEACHERS[name])(llm=llm, **options)
    return teacher


def tuned_judge(folder: Path, model: str) -> TunedJudge:
    """The judge in a folder, over the embedding model that `--model` names."""
    from llama_index.tuning.judges.judge import TunedJudge

    return TunedJudge.load(folder, models.embedding_model_or_none(model))
