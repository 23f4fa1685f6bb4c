"""A router as a whole: each tool's app on the questions that its nodes answer, then the selector.

A question belongs to the tools whose nodes answer it, so that the same questions tune both.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.selectors import LLMMultiSelector, PydanticMultiSelector
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning._checks import of_type, plain_arguments
from llama_index.tuning._running import own_work
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.questions import check_telling, of_app, read_questions, read_traffic
from llama_index.tuning.app.see import SeenApp, look_at
from llama_index.tuning.app.tune import tune_app
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.routers.engine import RouterFinetuneEngine, check_datasets

if TYPE_CHECKING:
    from llama_index.tuning.routers.report import RouterReport


@dataclass(frozen=True, eq=False)
class TunedRouter:
    """A `RouterQueryEngine` as it is served after `tune_router`.

    Attributes:
        router: as it was.
        apps: choice → its tuned app; without tools whose nodes cannot be seen, which stay.
        selector: the tuned one; the router's own, if no gain over it is shown.
        report: of the selector.
        notes: what else a reader should know.
    """

    router: RouterQueryEngine
    apps: dict[str, TunedApp]
    selector: BaseSelector
    report: RouterReport
    notes: list[str]

    def __repr__(self) -> str:
        return f"TunedRouter({self.selector!r}, apps: {', '.join(self.apps) or 'none'})"

    def as_query_engine(self, **arguments: Any) -> RouterQueryEngine:
        """The router with the tuned selector and tools.

        Args:
            **arguments: of each tool's `TunedApp.as_query_engine`; without any, what the tool
                answers with is kept.
        """
        tools = [
            QueryEngineTool(
                self.apps[name].as_query_engine(**arguments) if name in self.apps else engine,
                metadata,
            )
            for name, engine, metadata in _tools(self.router)
        ]
        return RouterQueryEngine(
            self.selector, tools, llm=self.router._llm, summarizer=self.router._summarizer
        )

    def __str__(self) -> str:
        lines = [str(self.report)]
        lines += [f"{name}: {app.report.sentence}" for name, app in self.apps.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@own_work
@plain_arguments
def tune_router(
    router: RouterQueryEngine,
    questions: Any = None,
    *,
    traffic: Any = None,
    run_folder: str | PathLike[str] | None = "tuned_router.run",
    **arguments: Any,
) -> TunedRouter:
    """Tune a router's selector, and the app of each of its tools.

    The router's own selector is asked each question once, to be compared with the tuned one: if it
    asks an LLM, that is a call for each question.

    Args:
        router: stays as it is.
        questions: with their answers, among the nodes of all tools; as in `tune_app`.
        traffic: what the recorder saw: its questions, and the choices that the router made.
        run_folder: each tool's run goes on from a folder in it.
        **arguments: of `tune_app`, for each tool.

    Raises:
        DatasetError: the questions are not about the tools' nodes, or too few for a router.

    Example:
        >>> router = tune_router(router, "questions.json")  # doctest: +SKIP
        >>> router.as_query_engine().query("How long do refunds take?")  # doctest: +SKIP
    """
    of_type("router", router, RouterQueryEngine)
    notes: list[str] = []
    seen: dict[str, SeenApp] = {}
    for name, engine, _ in _tools(router):
        try:
            seen[name] = look_at(engine)
        except (TypeError, DatasetError) as exc:
            notes.append(f"{name} stays as it is: {exc}")
    if not seen:
        raise TypeError(f"no tool of the router can be tuned: {'; '.join(notes)}")
    dataset = _asked(questions, traffic, seen, notes)
    owners = {
        id_: [name for name, app in seen.items() if any(doc in app.nodes for doc in docs)]
        for id_, docs in dataset.relevant_docs.items()
    }
    pairs = [(text, owners[id_]) for id_, text in dataset.queries.items()]
    examples = RoutingDataset.from_router(router, pairs)
    check_datasets(examples, None)
    engine = RouterFinetuneEngine(examples, _model(seen), base_selector=router._selector)
    report = engine.finetune()
    with warnings.catch_warnings():  # that the router's own selector stays is in the report
        warnings.simplefilter("ignore", UserWarning)
        several = isinstance(router._selector, (LLMMultiSelector, PydanticMultiSelector))
        selector = engine.get_finetuned_model(multi=several)
    engines = {name: engine for name, engine, _ in _tools(router)}
    apps: dict[str, TunedApp] = {}
    for name, app in seen.items():
        part = _part(dataset, [id_ for id_, names in owners.items() if name in names], app)
        if part is None:
            notes.append(f"{name} has too few questions of its own: its documents alone")
        folder = None if run_folder is None else Path(run_folder) / str(len(apps))
        apps[name] = tune_app(engines[name], part, run_folder=folder, **arguments)
    return TunedRouter(router, apps, selector, report, notes)


def _tools(router: RouterQueryEngine) -> list[tuple[str, Any, Any]]:
    """Each choice's name, query engine and metadata."""
    names = RoutingDataset.from_router(router).choices
    return list(zip(names, router._query_engines, router._metadatas, strict=True))


def _asked(
    questions: Any, traffic: Any, seen: dict[str, SeenApp], notes: list[str]
) -> RetrievalDataset:
    """All questions over the nodes of all tools."""
    nodes = {id_: node for app in seen.values() for id_, node in app.nodes.items()}
    whole = replace(next(iter(seen.values())), nodes=nodes)
    parts = []
    if questions is not None:
        parts.append(of_app(read_questions(questions, whole), whole, "questions", notes))
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


def _model(seen: dict[str, SeenApp]) -> BaseEmbedding | None:
    return next((app.embed_model for app in seen.values() if app.embed_model is not None), None)
