"""A router as a whole: each tool's app on the questions that its nodes answer, then the selector.

A question belongs to the tools whose nodes answer it, so that the same questions tune both.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.selectors import LLMMultiSelector, PydanticMultiSelector

from llama_index.tuning._checks import of_type, plain_arguments
from llama_index.tuning._running import own_work
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.parts.judge import verdicts
from llama_index.tuning.app.questions import (
    GENERATE,
    check_telling,
    of_app,
    read_log,
    read_questions,
    read_traffic,
)
from llama_index.tuning.app.router.model import TunedRouter, tools_of
from llama_index.tuning.app.run import run_of, tune_one
from llama_index.tuning.app.see import SeenApp, look_at
from llama_index.tuning.collect.traffic import Traffic
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.routers.engine import RouterFinetuneEngine, check_datasets

if TYPE_CHECKING:
    from llama_index.tuning.routers.report import RouterReport

UNRATED = 1.0
"""Weight of a recorded choice that no user spoke of."""


@own_work
@plain_arguments
def tune_router(
    router: RouterQueryEngine,
    questions: Any = None,
    *,
    traffic: Any = None,
    judgments: Any = None,
    run_folder: str | PathLike[str] | None = "tuned_router.run",
    **arguments: Any,
) -> TunedRouter:
    """Tune a router's selector, and the app of each of its tools.

    The router's own selector is asked each question once, to be compared with the tuned one: if it
    asks an LLM, that is a call for each question.

    Args:
        router: stays as it is.
        questions: with their answers, among the nodes of all tools; as in `tune_app`.
        traffic: what the recorder saw: its questions, and the choices that users confirmed or
            corrected.
        judgments: verdicts on answers, as in `tune_app`.
        run_folder: each tool's run goes on from a folder in it.
        **arguments: of `tune_app`, for each tool.

    Raises:
        DatasetError: the questions are not about the tools' nodes, or too few for a router.

    Example:
        >>> router = tune_router(router, "questions.json")  # doctest: +SKIP
        >>> router.as_query_engine().query("How long do refunds take?")  # doctest: +SKIP
    """
    of_type("router", router, RouterQueryEngine)
    if isinstance(questions, str) and questions == GENERATE:
        raise ValueError(
            f"questions={GENERATE!r} is for an app of its own: generate questions for each tool, "
            "and hand them over together"
        )
    run_of(**arguments)  # what is wrong is said before anything is learnt
    notes: list[str] = []
    seen = _seen(router, notes)
    model = next((app.embed_model for app in seen.values() if app.embed_model is not None), None)
    dataset = _asked(questions, traffic, seen, notes)
    judged = verdicts(judgments, traffic, model)
    owners = {
        id_: [name for name, app in seen.items() if any(doc in app.nodes for doc in docs)]
        for id_, docs in dataset.relevant_docs.items()
    }
    pairs = [(text, owners[id_]) for id_, text in dataset.queries.items()]
    examples = _examples(router, pairs, traffic, notes)
    selector, report = _selector(router, examples, model)
    engines = {name: engine for name, engine, _ in tools_of(router)}
    apps: dict[str, TunedApp] = {}
    for name, app in seen.items():
        part = _part(dataset, [id_ for id_, names in owners.items() if name in names], app)
        if part is None:
            notes.append(f"{name} has too few questions of its own: its documents alone")
        folder = None if run_folder is None else Path(run_folder) / str(len(apps))
        apps[name] = tune_one(engines[name], part, run_of(run_folder=folder, **arguments))
    judge = None
    if judged is not None:
        judge, note = judged.learn()
        notes.append(note)
    return TunedRouter(router, apps, selector, report, notes, judge)


def _seen(router: RouterQueryEngine, notes: list[str]) -> dict[str, SeenApp]:
    """What can be seen of each tool."""
    seen: dict[str, SeenApp] = {}
    for name, engine, _ in tools_of(router):
        try:
            seen[name] = look_at(engine)
        except (TypeError, DatasetError) as exc:
            notes.append(f"{name} stays as it is: {exc}")
    if not seen:
        raise TypeError(f"no tool of the router can be tuned: {'; '.join(notes)}")
    return seen


def _examples(
    router: RouterQueryEngine, pairs: list[tuple[str, list[str]]], traffic: Any, notes: list[str]
) -> RoutingDataset:
    """Each question with the tools whose nodes answer it; and choices that users spoke for."""
    known = {text for text, _ in pairs}
    names = set(RoutingDataset.from_router(router).choices)
    more = []
    for example in [] if traffic is None else _confirmed(read_log(traffic)):
        if example.query not in known and example.choices and names.issuperset(example.choices):
            more.append((example.query, list(example.choices)))
    if more:
        notes.append(f"{len(more)} choices that users confirmed or corrected teach the selector")
    examples = RoutingDataset.from_router(router, [*pairs, *more])
    check_datasets(examples, None)
    return examples


def _confirmed(traffic: Traffic) -> list[RoutingExample]:
    try:
        recorded = traffic.routing_dataset()
    except DatasetError:  # no router was recorded
        return []
    return [example for example in recorded.examples if example.weight > UNRATED]


def _selector(
    router: RouterQueryEngine, examples: RoutingDataset, model: BaseEmbedding | None
) -> tuple[BaseSelector, RouterReport]:
    engine = RouterFinetuneEngine(examples, model, base_selector=router._selector)
    report = engine.finetune()
    with warnings.catch_warnings():  # that the router's own selector stays is in the report
        warnings.simplefilter("ignore", UserWarning)
        several = isinstance(router._selector, (LLMMultiSelector, PydanticMultiSelector))
        return engine.get_finetuned_model(multi=several), report


def _asked(
    questions: Any, traffic: Any, seen: dict[str, SeenApp], notes: list[str]
) -> RetrievalDataset:
    """All questions over the nodes of all tools."""
    nodes = {id_: node for app in seen.values() for id_, node in app.nodes.items()}
    whole = replace(next(iter(seen.values())), nodes=nodes)
    parts = []
    if questions is not None:
        asked = read_questions(questions, whole, notes)
        parts.append(of_app(asked, whole, "questions", notes))
    if traffic is not None:
        parts.append(of_app(read_traffic(traffic), whole, "traffic", notes))
    if not parts:
        raise DatasetError("a router is tuned from questions or traffic; none were given")
    queries = {f"{i}:{id_}": text for i, p in enumerate(parts) for id_, text in p.queries.items()}
    docs = {f"{i}:{id_}": ids for i, p in enumerate(parts) for id_, ids in p.relevant_docs.items()}
    return RetrievalDataset(queries, parts[0].corpus, docs).merge_duplicates()


def _part(dataset: RetrievalDataset, ids: list[str], app: SeenApp) -> RetrievalDataset | None:
    """The questions that one tool's nodes answer; `None` if they are too few or too alike."""
    docs = {id_: [d for d in dataset.relevant_docs[id_] if d in app.nodes] for id_ in ids}
    part = RetrievalDataset({id_: dataset.queries[id_] for id_ in ids}, app.texts, docs)
    try:
        check_telling(part)
    except DatasetError:
        return None
    return part
