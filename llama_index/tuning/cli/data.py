"""`collect`: recorded traffic; `generate`: made data; `questions`: tables that people fill in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import typer

from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.cli import models
from llama_index.tuning.cli.common import (
    API_BASE,
    CORPUS,
    JSON,
    LLM_HELP,
    MODEL,
    RETRIEVAL_DATA,
    TRAIN_SPLIT,
    console,
    keep_run,
    print_json,
)
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.generate import (
    generate_qa_embedding_pairs,
    generate_sentence_queries,
    mine_hard_negatives,
    read_passages,
)

collect_app = typer.Typer(
    help="Look at recorded traffic, and export it.", no_args_is_help=True, rich_markup_mode=None
)

_FILE = typer.Argument(help="A recorder's log, such as traffic.jsonl.")
_CHAT = "openai, openai-preference, trl, trl-prompt-completion, sharegpt"
_HELP = f"{_CHAT}; or retrieval, routing, relevance, users-relevance, judgments."


@collect_app.command("stats")
def stats(file: Path = _FILE, json: bool = JSON) -> None:
    """Count what was recorded: requests, records, models, feedback."""
    from llama_index.tuning.collect.traffic import Traffic

    found = Traffic.load(file).stats()
    if json:
        print_json(found)
        return
    for name, value in found.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        console.print(f"{name:<10}{shown}", markup=False, soft_wrap=True)


@collect_app.command("import")
def import_(
    file: Path = typer.Argument(help="Spans: OTLP JSON, JSON Lines or Parquet."),
    out: Path = typer.Option(Path("traffic.jsonl"), help="Log to write; it must not exist."),
) -> None:
    """Make a log of the traces that Phoenix, Langfuse, MLflow or OpenTelemetry exported."""
    from llama_index.tuning.collect.imports.rows import write_spans

    count, faults = write_spans(file, out)
    console.print(f"{count} records written to {out}", markup=False, soft_wrap=True)
    for fault, number in faults.most_common():
        console.print(f"left out: {number} {fault}", markup=False, soft_wrap=True)


@collect_app.command("export")
def export(
    file: Path = _FILE,
    out: Path = typer.Option(..., help="File to write."),
    format: str = typer.Option("openai", help=_HELP),
    teacher: str | None = typer.Option(None, help="Only outputs of this LLM or component class."),
    model: str | None = typer.Option(None, help="Only records of this LLM."),
    min_feedback: float | None = typer.Option(None, help="Least feedback score of the request."),
    min_score: float | None = typer.Option(None, help="Least judge's score of the request."),
    since: datetime | None = typer.Option(None, help="Not earlier."),
    until: datetime | None = typer.Option(None, help="Earlier than this."),
    min_examples: int = typer.Option(10, help="Fewer are an error, for chat formats."),
    without_thinking: bool = typer.Option(
        False, "--without-thinking", help="Leave a model's thoughts out; else they are refused."
    ),
) -> None:
    """Write recorded traffic as a dataset or a training file."""
    from llama_index.tuning.collect.recorded import Only, RelevanceSource
    from llama_index.tuning.collect.traffic import Traffic
    from llama_index.tuning.datasets.chat import FORMATS

    traffic = Traffic.load(file)
    where = Only(
        min_feedback=min_feedback, min_score=min_score, since=since, until=until, model=model
    )
    if format in FORMATS:
        view = traffic.chat_dataset
        if format == "openai-preference":
            view = traffic.preference_dataset
        chats = view(where=where, teacher=teacher)
        chats = chats.without_thinking() if without_thinking else chats
        chats.save_jsonl(out, format=format, min_examples=min_examples)
        count = len(chats)
    elif format == "retrieval":
        retrieval = traffic.retrieval_dataset(where=where, teacher=teacher)
        retrieval.save_json(out)
        count = len(retrieval)
    elif format == "routing":
        routing = traffic.routing_dataset(where=where, teacher=teacher)
        routing.save_json(out)
        count = len(routing)
    elif format in ("relevance", "users-relevance"):
        source: RelevanceSource = "users" if format == "users-relevance" else "rerankers"
        relevance = traffic.relevance_dataset(where=where, teacher=teacher, source=source)
        relevance.save_jsonl(out)
        count = len(relevance)
    elif format == "judgments":
        judgments = traffic.judgment_dataset(where=where, teacher=teacher)
        judgments.save_jsonl(out)
        count = len(judgments)
    else:
        raise ValueError(f"unknown format {format!r}; choose one of: {_HELP[:-1]}")
    console.print(f"{count} examples written to {out}", markup=False, soft_wrap=True)


generate_app = typer.Typer(
    help="Make training data from documents.", no_args_is_help=True, rich_markup_mode=None
)

_LLM = typer.Option(None, help=LLM_HELP)
_WORKERS = typer.Option(8, help="Concurrent calls to the LLM.")


@generate_app.command("questions")
def questions(
    docs: Path = typer.Argument(help="A document, or a folder of documents.", exists=True),
    out: Path = typer.Option(..., help="JSON file for the dataset; a run file lies beside it."),
    llm: str | None = typer.Option(
        None, help=f"{LLM_HELP} Without it, the documents' sentences are the queries."
    ),
    api_base: str | None = API_BASE,
    count: int = typer.Option(2, help="Questions for each passage; sentences of it at most."),
    style: list[str] = typer.Option([], help="Style of the queries; may be given several times."),
    answers: Path | None = typer.Option(None, help="JSON Lines file: ask for answers too."),
    verify: bool = typer.Option(False, help="Drop questions that the passage does not answer."),
    val_out: Path | None = typer.Option(None, help="JSON file for a part held out by document."),
    val_size: float = typer.Option(0.2, help="Share of the queries held out, from 0 to 1."),
    chunk_size: int = typer.Option(512, help="Tokens of a passage."),
    num_workers: int = _WORKERS,
    retry_limit: int = typer.Option(5, help="How often one call may fail."),
    seed: int = typer.Option(0, help="Seed of the draw of sentences and of the split."),
    json: bool = JSON,
) -> None:
    """Write a dataset of queries and the passages that answer them.

    Started again after an error or a kill, it goes on where it was.
    """
    passages = read_passages(docs, chunk_size=chunk_size)
    if llm is None:
        _check_no_llm_options(api_base=api_base, style=style, answers=answers, verify=verify)
        texts = {node.node_id: node.get_content() for node in passages}
        dataset = generate_sentence_queries(texts, per_document=count, seed=seed)
        counts = {"nodes": len(passages), "questions": len(dataset)}
        failures: list[Failure] = []
        dataset.save_json(out)
    else:
        keep_run(out)
        made = generate_qa_embedding_pairs(
            passages,
            models.language_model(llm, api_base),
            num_questions_per_chunk=count,
            retry_limit=retry_limit,
            output_path=out,
            verbose=False,
            num_workers=num_workers,
            with_answers=answers is not None,
            verify=verify,
            question_styles=style or None,
            show_progress=not json,
        )
        if answers is not None:
            made.save_question_answers(answers)
        dataset, counts, failures = made, made.counts, made.failures
    if val_out is not None:
        train, held_out = dataset.split(val_size, by="document", seed=seed)
        train.save_json(out)
        held_out.save_json(val_out)
        counts = {**counts, "training": len(train), "held_out": len(held_out)}
    _print(json, out, counts, failures)


@generate_app.command("negatives")
def negatives(
    data: Path = RETRIEVAL_DATA,
    out: Path = typer.Option(..., help="JSON Lines file for the negatives of each query."),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TRAIN_SPLIT,
    count: int = typer.Option(5, help="Negatives for each query, at most."),
    first_rank: int = typer.Option(1, help="First rank that a negative may have."),
    last_rank: int = typer.Option(100, help="Last rank that a negative may have."),
    margin: float = typer.Option(0.05, help="Share by which it scores below the best answer."),
    sampling: str = typer.Option("top", help="top: the hardest; random: any that qualifies."),
    llm: str | None = _LLM,
    api_base: str | None = API_BASE,
    max_calls: int | None = typer.Option(None, help="Requests to the LLM, at most."),
    num_workers: int = _WORKERS,
    seed: int = typer.Option(0, help="Seed of --sampling random."),
    json: bool = JSON,
) -> None:
    """Find documents that rank high for a query and do not answer it.

    With --llm, each is checked: what answers the query after all is left out.
    """
    if llm:
        keep_run(out)
    mined = mine_hard_negatives(
        RetrievalDataset.load(data, corpus=corpus, split=split),
        embed_model=models.embedding_model(model),
        num_negatives=count,
        rank_range=(first_rank, last_rank),
        relative_margin=margin,
        sampling=cast(Literal["top"], sampling),
        seed=seed,
        llm=models.language_model(llm, api_base, temperature=0.0) if llm else None,
        output_path=out,
        run=RunOptions(max_calls=max_calls, num_workers=num_workers, show_progress=not json),
    )
    _print(json, out, mined.counts, mined.failures)


def _check_no_llm_options(**options: Any) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise ValueError(f"without --llm there is no {', '.join(given)}")


def _print(json: bool, out: Path, counts: Mapping[str, int], failures: list[Failure]) -> None:
    if json:
        print_json({**counts, "failures": [failure.to_dict() for failure in failures]})
        return
    for name, value in counts.items():
        console.print(f"{name.replace('_', ' '):<24}{value}")
    for failure in failures[:5]:
        console.print(f"failed: {failure.id}: {failure.message}", markup=False, soft_wrap=True)
    console.print(f"saved to {out}", soft_wrap=True)


questions_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_KINDS = "retrieval, routing or judgments"


@questions_app.command("template")
def template(
    out: Path = typer.Option(Path("questions.csv"), help="File to write; it must not exist."),
    kind: str = typer.Option("retrieval", help=f"What it is for: {_KINDS}."),
) -> None:
    """Write a table to fill in, with example rows."""
    from llama_index.tuning._files import write_text_atomic
    from llama_index.tuning.datasets.formats.shapes import TEMPLATES

    if kind not in TEMPLATES:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {', '.join(TEMPLATES)}")
    if out.exists():
        raise ValueError(f"{out} exists; it is not written over")
    write_text_atomic(out, TEMPLATES[kind])
    console.print(f"a table for {kind} written to {out}", markup=False, soft_wrap=True)


@questions_app.command("convert")
def convert(
    table: Path = typer.Argument(help="A .csv, .tsv, .jsonl, .json, .xlsx or .parquet file."),
    out: Path = typer.Option(..., help="File for the dataset."),
    kind: str = typer.Option("retrieval", help=f"What it is for: {_KINDS}."),
) -> None:
    """Make a dataset of a table; rows that cannot be used are left out and counted."""
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset

    if kind == "retrieval":
        retrieval = RetrievalDataset.from_table(table)
        retrieval.save_json(out)
        count = len(retrieval)
    elif kind == "routing":
        routing = RoutingDataset.from_table(table)
        routing.save_json(out)
        count = len(routing)
    elif kind == "judgments":
        judgments = JudgmentDataset.from_table(table)
        judgments.save_jsonl(out)
        count = len(judgments)
    else:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {_KINDS}")
    console.print(f"{count} rows written to {out}", markup=False, soft_wrap=True)
