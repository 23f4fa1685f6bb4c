"""Questions to an LLM about the rows of a folder: questions of passages, relevance, verdicts.

Each is the function for lists, called on a shard with a file that keeps its calls: a worker that
is killed goes on behind the last call that was answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import check_counts
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.options import CallOptions, RunOptions
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.asking.run import run_options
from llama_index.tuning.datasets.formats.judgments import samples_of
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError, ReplyError
from llama_index.tuning.generate.questions import (
    DEFAULT_QA_GENERATE_PROMPT_TMPL,
    check_template,
    generate_qa_embedding_pairs,
    styles_of,
)
from llama_index.tuning.generate.relevance import Pair, Scale, label_pairs, relevance_prompt
from llama_index.tuning.judges.label import content_id, label_judgments
from llama_index.tuning.judges.teacher import FIELDS, check_samples
from llama_index.tuning.scale.components import Given, built, check_component, identity_of
from llama_index.tuning.scale.job import Batch
from llama_index.tuning.scale.options import Backend, ScaleOptions
from llama_index.tuning.scale.run import FolderReport, read_columns, row_faults, run_folder
from llama_index.tuning.scale.shards import Columns, typed_table

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

_ROWS = 256


@own_work
def generate_questions(
    source: PathLike,
    output: PathLike,
    llm: Given[LLM],
    *,
    qa_generate_prompt_tmpl: str = DEFAULT_QA_GENERATE_PROMPT_TMPL,
    num_questions_per_chunk: int = 2,
    with_answers: bool = False,
    verify: bool = False,
    question_styles: Sequence[str] | Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    run: RunOptions | None = None,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """Questions that the passages of a folder answer, written as a folder.

    `generate_qa_embedding_pairs` on each shard. The results have `id`, `question`, `relevant` (ids
    of the passages), `answer` and `style`. Passages alike are asked about once within a shard.

    Args:
        source: files with columns `id` and `text`; see `embed_corpus`.
        output: the folder that is written.
        llm: the LLM, or `functools.partial(Class, …)` that makes it in each worker.
        qa_generate_prompt_tmpl: as in `generate_qa_embedding_pairs`, as the next four are.
        num_questions_per_chunk: how many to ask for.
        with_answers: ask for an answer to each too.
        verify: drop questions that their passage does not answer.
        question_styles: how the queries shall look.
        columns: what `id` and `text` are called in the files, if not so.
        run: how each worker asks: `num_workers` calls at once, …; `max_calls` is not for folders.
        backend: `"local"`, in this process, or `"ray"`.
        options: see `ScaleOptions`; `requests_per_minute` is of all workers together.

    Raises:
        GenerationError: no call can succeed (a wrong key), or all items of a shard failed.
    """
    from llama_index.core.base.llms.base import BaseLLM

    check_component("llm", llm, BaseLLM)
    check_counts(num_questions_per_chunk=num_questions_per_chunk)
    check_template(
        "qa_generate_prompt_tmpl",
        qa_generate_prompt_tmpl,
        "context_str",
        optional=["num_questions_per_chunk"],
    )
    settings = {
        "qa_generate_prompt_tmpl": qa_generate_prompt_tmpl,
        "num_questions_per_chunk": num_questions_per_chunk,
        "with_answers": with_answers,
        "verify": verify,
        "question_styles": styles_of(question_styles) or None,
    }
    work = _Questions(llm, settings, dict(columns or {}), folder_run(run))
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


@own_work
def label_relevance(
    source: PathLike,
    output: PathLike,
    llm: Given[LLM],
    *,
    scale: Scale = "yes_no",
    prompt: str | None = None,
    columns: Mapping[str, str] | None = None,
    run: RunOptions | None = None,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """How relevant the passages of a folder are to their queries, by an LLM.

    The function of this name in `llama_index.tuning.generate`, on pairs that were retrieved
    already. The results have `query_id`, `id` and `score`.

    Args:
        source: files with columns `query_id`, `query`, `id` and `text` (of the passage).
        output: the folder that is written.
        llm: the LLM, or `functools.partial(Class, …)` that makes it in each worker.
        scale: `"yes_no"` gives 1 or 0; `"graded"` 0 to 3.
        prompt: with `{query}` and `{document}`; one of its own for each scale by default.
        columns: what those four are called in the files, if not so.
        run: as in `generate_questions`, as the next two are.
        backend: `"local"` or `"ray"`.
        options: see `ScaleOptions`.
    """
    from llama_index.core.base.llms.base import BaseLLM

    check_component("llm", llm, BaseLLM)
    template = relevance_prompt(scale, prompt)
    work = _Relevance(llm, scale, template, dict(columns or {}), folder_run(run))
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


@own_work
def judge_answers(
    source: PathLike,
    output: PathLike,
    teacher: Given[BaseEvaluator],
    *,
    columns: Mapping[str, str] | None = None,
    run: RunOptions | None = None,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """Verdicts of an evaluator on the answers of a folder.

    `label_judgments` on each shard; a `TunedJudge` is an evaluator too. The results have `id`,
    `score`, `passing` and `feedback`; answers without a verdict are among the failures.

    Args:
        source: files with columns `id` and whatever the evaluator needs of `query`, `response`,
            `contexts` (a list of texts), `reference` and `second_response`.
        output: the folder that is written.
        teacher: any LlamaIndex evaluator, or a partial that makes it in each worker.
        columns: what those are called in the files, if not so.
        run: as in `generate_questions`, as the next two are.
        backend: `"local"` or `"ray"`.
        options: see `ScaleOptions`.
    """
    from llama_index.core.evaluation import BaseEvaluator

    check_component("teacher", teacher, BaseEvaluator)
    work = _Judgments(teacher, dict(columns or {}), folder_run(run))
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


def folder_run(run: RunOptions | None) -> RunOptions:
    """How the calls of a shard are made.

    Raises:
        ValueError: `max_calls`, which each shard would have anew.
    """
    run = run_options(run)
    if run.max_calls is not None:
        raise ValueError(
            f"max_calls is of one list, not of a folder, got {run.max_calls}; "
            "requests_per_minute of ScaleOptions limits all workers"
        )
    return replace(run, show_progress=False)  # the bar counts shards


@dataclass(frozen=True)
class _Questions:
    """Questions of the passages of a shard."""

    llm: Given[LLM]
    settings: Mapping[str, Any]
    names: Mapping[str, str]
    run: RunOptions
    title: str = "Generating questions"

    @property
    def columns(self) -> Columns:
        return read_columns({"id": "string", "text": "string"}, ("id", "text"), self.names)

    def header(self) -> dict[str, Any]:
        return {"task": "questions", **identity_of(self.llm), **self.settings}

    def start(self, limiter: Any) -> Batch:
        from llama_index.core.schema import TextNode

        llm = built(self.llm, limiter)
        calling = CallOptions(**{f.name: getattr(self.run, f.name) for f in fields(CallOptions)})
        types = {"id": "string", "question": "string", "relevant": "list<string>"}
        types |= {"answer": "string", "style": "string"}

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            ids, texts = (rows.column(name).to_pylist() for name in ("id", "text"))
            good, failures = row_faults(ids, {"text": texts}, distinct=True)
            if not good:
                return typed_table([], types), failures
            found = generate_qa_embedding_pairs(
                [TextNode(id_=ids[n], text=texts[n]) for n in good],
                llm,
                **self.settings,
                retry_limit=self.run.retry_limit,
                on_failure=self.run.on_failure,
                save_every=self.run.save_every,
                verbose=self.run.verbose,
                num_workers=self.run.workers,
                output_path=calls,
                options=calling,
            )
            results = [
                {
                    "id": id_,
                    "question": text,
                    "relevant": found.relevant_docs[id_],
                    "answer": found.answers.get(id_),
                    "style": found.styles.get(id_),
                }
                for id_, text in found.queries.items()
            ]
            return typed_table(results, types), [*failures, *found.failures]

        return batch


@dataclass(frozen=True)
class _Relevance:
    """Grades of the pairs of a shard."""

    llm: Given[LLM]
    scale: Scale
    prompt: str
    names: Mapping[str, str]
    run: RunOptions
    title: str = "Labelling"

    @property
    def columns(self) -> Columns:
        names = ("query_id", "query", "id", "text")
        return read_columns(dict.fromkeys(names, "string"), names, self.names)

    def header(self) -> dict[str, Any]:
        found = {"task": "relevance", "scale": self.scale, "prompt": self.prompt}
        return {**found, **identity_of(self.llm)}

    def start(self, limiter: Any) -> Batch:
        llm = built(self.llm, limiter)
        types = {"query_id": "string", "id": "string", "score": "float"}

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            names = ("query_id", "query", "id", "text")
            queries, asked, ids, texts = (rows.column(name).to_pylist() for name in names)
            given = {"query_id": queries, "query": asked, "text": texts}
            good, failures = row_faults(ids, given)
            pairs: dict[str, Pair] = {}
            for n in good:
                pair = Pair(queries[n], asked[n], ids[n], texts[n], 0)
                pairs.setdefault(pair.id, pair)
            if not pairs:
                return typed_table([], types), failures
            found = label_pairs(
                list(pairs.values()),
                llm,
                scale=self.scale,
                template=self.prompt,
                output_path=calls,
                run=self.run,
            )
            results = [
                {"query_id": one.query_id, "id": one.node_id, "score": float(one.score)}
                for one in found
            ]
            return typed_table(results, types), [*failures, *found.failures]

        return batch


@dataclass(frozen=True)
class _Judgments:
    """Verdicts on the answers of a shard."""

    teacher: Given[BaseEvaluator]
    names: Mapping[str, str]
    run: RunOptions
    title: str = "Judging"

    @property
    def columns(self) -> Columns:
        types = {"id": "string", **dict.fromkeys(FIELDS, "string"), "contexts": "list<string>"}
        return read_columns(types, ("id",), self.names)

    def header(self) -> dict[str, Any]:
        return {"task": "judgments", **identity_of(self.teacher)}

    def start(self, limiter: Any) -> Batch:
        teacher = built(self.teacher, limiter)
        types = {"id": "string", "score": "float", "passing": "bool", "feedback": "string"}

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            samples, ids, failures = _samples(rows.to_pylist(), teacher)
            if not samples:
                return typed_table([], types), failures
            found = label_judgments(samples, teacher, output_path=calls, run=self.run)
            results = [
                {"id": id_, **{name: getattr(one, name) for name in types if name != "id"}}
                for one in found.dataset.judgments
                for id_ in ids[content_id(one)[0]]
            ]
            turned = ReplyError("the verdict turned with the order of the answers")
            failed = [
                Failure.of(content_id(one)[0], "judge", turned, 1) for one in found.inconclusive
            ]
            for failure in (*failed, *found.invalid, *found.failures):
                failures += [replace(failure, id=id_) for id_ in ids[failure.id]]
            return typed_table(results, types), failures

        return batch


def _samples(
    rows: Sequence[Mapping[str, Any]], teacher: BaseEvaluator
) -> tuple[list[Judgment], dict[str, list[str]], list[Failure]]:
    """What can be judged, the ids of each by its content, and what cannot."""
    samples: list[Judgment] = []
    ids: dict[str, list[str]] = {}
    failures: list[Failure] = []
    _, nameless = row_faults([row["id"] for row in rows], {})
    for row in rows:
        if row["id"] is None:
            continue
        try:
            [sample] = samples_of([{name: row[name] for name in FIELDS if row[name] is not None}])
            check_samples([sample], teacher)
        except DatasetError as exc:
            failures.append(Failure.of(row["id"], "read", exc, 1))
            continue
        samples.append(sample)
        ids.setdefault(content_id(sample)[0], []).append(row["id"])
    return samples, ids, [*nameless, *failures]
