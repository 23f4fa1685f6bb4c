"""`scale`: folders of Parquet or JSON Lines worked through in shards, here or on Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import typer

from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.cli import models
from llama_index.tuning.cli.common import (
    API_BASE,
    JSON,
    JUDGE_MODEL,
    LLM_HELP,
    MODEL,
    keep,
    show,
)
from llama_index.tuning.cli.judge import tuned_judge
from llama_index.tuning.scale import FolderReport, ScaleOptions

app = typer.Typer(
    help="Work through folders of Parquet or JSON Lines files, here or on Ray.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SOURCE = typer.Argument(help="A .parquet or .jsonl file, or a folder of them; a path or URL.")
_OUT = typer.Option(..., help="Folder to write; started again, the command goes on in it.")
_LLM = typer.Option(..., help=LLM_HELP)
_BACKEND = typer.Option("local", help="local: in this process; ray: on a cluster.")
_ADDRESS = typer.Option(None, help="Address of Ray's cluster; the one that is there, by default.")
_WORKERS = typer.Option(None, help="Processes on Ray; as many as its CPUs allow, by default.")
_ROWS = typer.Option(None, help="Rows of a shard, which is what a killed worker loses.")
_RPM = typer.Option(None, help="Requests a minute, of all workers together.")
_RETRY = typer.Option(False, "--retry-failed", help="Do shards with failed items again.")
_CALLS = typer.Option(8, help="Concurrent calls of each worker to the LLM.")
_RENAME = typer.Option([], help="NAME=COLUMN: what a column is called in the files.")


@app.command("embed")
def embed(
    source: str = _SOURCE,
    out: str = _OUT,
    model: str = MODEL,
    queries: bool = typer.Option(False, "--queries", help="The texts are queries."),
    keep_columns: list[str] = typer.Option(
        [], "--keep", help="NAME=TYPE: a column for the output: string, float, list<string>, …"
    ),
    array: Path | None = typer.Option(None, help="Also write the vectors as one .npy file."),
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    requests_per_minute: float | None = _RPM,
    retry_failed: bool = _RETRY,
    json: bool = JSON,
) -> None:
    """Embed the texts of a folder (columns id and text)."""
    from llama_index.tuning.scale import embed_corpus, vectors_to_array

    where = _where(
        out, json, backend, address, workers, rows_per_shard, requests_per_minute, retry_failed
    )
    report = embed_corpus(
        source,
        out,
        partial(models.embedding_model, model),
        kind="query" if queries else "text",
        columns=_pairs("--column", column),
        keep=_pairs("--keep", keep_columns),
        **where,
    )
    if array is not None:
        vectors_to_array(out, array)
    _show(report, json)


@app.command("negatives")
def negatives(
    source: str = _SOURCE,
    out: str = _OUT,
    vectors: Path = typer.Option(..., help="The documents' array, of embed --array.", exists=True),
    count: int = typer.Option(5, help="Negatives for each query, at most."),
    first_rank: int = typer.Option(1, help="First rank that a negative may have."),
    last_rank: int = typer.Option(100, help="Last rank that a negative may have."),
    margin: float = typer.Option(0.05, help="Share by which it scores below the best answer."),
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    json: bool = JSON,
) -> None:
    """Find hard negatives of embedded queries (columns id, vector and relevant)."""
    from llama_index.tuning.scale import mine_hard_negatives

    where = _where(out, json, backend, address, workers, rows_per_shard)
    report = mine_hard_negatives(
        source,
        out,
        vectors,
        num_negatives=count,
        rank_range=(first_rank, last_rank),
        relative_margin=margin,
        columns=_pairs("--column", column),
        **where,
    )
    _show(report, json)


@app.command("questions")
def questions(
    source: str = _SOURCE,
    out: str = _OUT,
    llm: str = _LLM,
    api_base: str | None = API_BASE,
    count: int = typer.Option(2, help="Questions for each passage."),
    answers: bool = typer.Option(False, "--answers", help="Ask for answers too."),
    verify: bool = typer.Option(False, help="Drop questions that the passage does not answer."),
    style: list[str] = typer.Option([], help="Style of the queries; may be given several times."),
    num_workers: int = _CALLS,
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    requests_per_minute: float | None = _RPM,
    retry_failed: bool = _RETRY,
    json: bool = JSON,
) -> None:
    """Write questions that the passages of a folder answer (columns id and text)."""
    from llama_index.tuning.scale import generate_questions

    where = _where(
        out, json, backend, address, workers, rows_per_shard, requests_per_minute, retry_failed
    )
    report = generate_questions(
        source,
        out,
        partial(models.language_model, llm, api_base),
        num_questions_per_chunk=count,
        with_answers=answers,
        verify=verify,
        question_styles=style or None,
        columns=_pairs("--column", column),
        run=RunOptions(num_workers=num_workers, verbose=False),
        **where,
    )
    _show(report, json)


@app.command("relevance")
def relevance(
    source: str = _SOURCE,
    out: str = _OUT,
    llm: str = _LLM,
    api_base: str | None = API_BASE,
    scale: str = typer.Option("yes_no", help="yes_no: 1 or 0; graded: 0 to 3."),
    num_workers: int = _CALLS,
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    requests_per_minute: float | None = _RPM,
    retry_failed: bool = _RETRY,
    json: bool = JSON,
) -> None:
    """Grade the pairs of a folder (columns query_id, query, id and text)."""
    from llama_index.tuning.scale import label_relevance

    where = _where(
        out, json, backend, address, workers, rows_per_shard, requests_per_minute, retry_failed
    )
    report = label_relevance(
        source,
        out,
        partial(models.language_model, llm, api_base, temperature=0.0),
        scale=cast(Literal["yes_no"], scale),
        columns=_pairs("--column", column),
        run=RunOptions(num_workers=num_workers, verbose=False),
        **where,
    )
    _show(report, json)


@app.command("rerank")
def rerank(
    source: str = _SOURCE,
    out: str = _OUT,
    reranker: Path | None = typer.Option(None, help=models.RERANKER_HELP, exists=True),
    top_n: int | None = typer.Option(None, help="Candidates to keep of each query."),
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    retry_failed: bool = _RETRY,
    json: bool = JSON,
) -> None:
    """Put candidates in order (columns id, query, candidates, texts and perhaps scores)."""
    from llama_index.tuning.scale import rerank as rerank_folder

    report = rerank_folder(
        source,
        out,
        partial(models.reranker, reranker, top_n),
        columns=_pairs("--column", column),
        **_where(out, json, backend, address, workers, rows_per_shard, None, retry_failed),
    )
    _show(report, json)


@app.command("judge")
def judge(
    source: str = _SOURCE,
    out: str = _OUT,
    folder: Path = typer.Option(..., "--judge", help="Folder of a tuned judge.", exists=True),
    model: str = JUDGE_MODEL,
    column: list[str] = _RENAME,
    backend: str = _BACKEND,
    address: str | None = _ADDRESS,
    workers: int | None = _WORKERS,
    rows_per_shard: int | None = _ROWS,
    retry_failed: bool = _RETRY,
    json: bool = JSON,
) -> None:
    """Judge answers by a tuned judge (columns id and query, response, contexts, …)."""
    from llama_index.tuning.scale import judge_answers

    report = judge_answers(
        source,
        out,
        partial(tuned_judge, folder, model),
        columns=_pairs("--column", column),
        run=RunOptions(verbose=False),
        **_where(out, json, backend, address, workers, rows_per_shard, None, retry_failed),
    )
    _show(report, json)


def _where(
    out: str,
    json: bool,
    backend: str,
    address: str | None,
    workers: int | None,
    rows_per_shard: int | None,
    requests_per_minute: float | None = None,
    retry_failed: bool = False,
) -> dict[str, Any]:
    options = ScaleOptions(
        address=address,
        workers=workers,
        rows_per_shard=rows_per_shard,
        requests_per_minute=requests_per_minute,
        retry_failed=retry_failed,
        show_progress=not json,
    )
    keep(f"finished shards are kept in {out}: the same command goes on from there")
    return {"backend": backend, "options": options}


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} must be NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def _show(report: FolderReport, json: bool) -> None:
    show(str(report), report.to_dict(), json)
