"""`tune_app`: an app in, the best app it can be out, with what each part gained."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.base import BaseIndex
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RouterQueryEngine

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning._running import own_work
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.run import run_of, tune_one

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from llama_index.tuning.app.router.model import TunedRouter


@overload
def tune_app(  # type: ignore[overload-overlap]  # a router is a query engine too
    app: RouterQueryEngine,
    questions: Any = None,
    *,
    traffic: Any = None,
    judgments: Any = None,
    also: Sequence[str | BaseNodePostprocessor] = (),
    keep_index: bool = False,
    max_latency_ms: float | None = None,
    max_seconds: float | None = None,
    run_folder: str | PathLike[str] | None = "tuned_app.run",
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> TunedRouter: ...


@overload
def tune_app(
    app: BaseIndex[Any] | BaseRetriever | BaseQueryEngine | Any,
    questions: Any = None,
    *,
    traffic: Any = None,
    judgments: Any = None,
    llm: LLM | None = None,
    max_calls: int | None = None,
    also: Sequence[str | BaseNodePostprocessor] = (),
    keep_index: bool = False,
    max_latency_ms: float | None = None,
    max_seconds: float | None = None,
    run_folder: str | PathLike[str] | None = "tuned_app.run",
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> TunedApp: ...


@own_work
@plain_arguments
def tune_app(
    app: Any,
    questions: Any = None,
    *,
    traffic: Any = None,
    judgments: Any = None,
    llm: LLM | None = None,
    max_calls: int | None = None,
    also: Sequence[str | BaseNodePostprocessor] = (),
    keep_index: bool = False,
    max_latency_ms: float | None = None,
    max_seconds: float | None = None,
    run_folder: str | PathLike[str] | None = "tuned_app.run",
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> TunedApp | TunedRouter:
    """Look at an app, measure what could make it better, and hand back what does.

    Of a `RouterQueryEngine` every tool's app is tuned, and the selector too (see `tune_router`).

    Args:
        app: an index, a retriever, or a query engine of LlamaIndex. It stays as it is.
        questions: a `RetrievalDataset`; a file or rows of questions with what answers them;
            `"generate"` for questions that an LLM writes and checks; by default none, for documents
            alone.
        traffic: a log of `FinetuningRecorder`, or `Traffic`: what users asked and liked.
        judgments: verdicts on answers, a `JudgmentDataset` or a file of one, that a judge is learnt
            from; by default those of the traffic, if it has any.
        llm: that writes them; `Settings.llm` by default.
        max_calls: requests that may be sent to it, two for a question; 400 by default.
        also: what to try last, by what it costs: re-rankers, such as an LLM's, or a name.
            `"corpus_side"`: an adapter of questions and documents; `"query_encoder"`: the app's own
            model, for questions alone; `"embedding_model"`: all its weights, served like the first
            from an index in memory.
            `"cross_encoder"`, or `"cross_encoder=model"` for another to start from. What is named
            is trained on each half of the questions, measured on the other, and served, trained
            on all, if its gain over all that is cheaper is shown.
        keep_index: leave out what gives the documents other vectors.
        max_latency_ms: what a query may cost more than now, beside embedding it; what costs
            more is not served.
        max_seconds: after which nothing more is learnt: an adapter that would take longer is left
            out, and in the end every tuned part.
        run_folder: what a killed run goes on from, written questions too; removed when the run
            succeeds. `None` keeps nothing.
        num_workers: concurrent calls of an embedding API or LLM.
        seed: of folds and intervals.
        show_progress: say what is being done, and show bars.

    Returns:
        The app to serve, with its report; the app as it was if nothing better is shown.

    Raises:
        TypeError: `app` or `questions` is something else.
        DatasetError: there are no nodes, or the questions are not about them or tell nothing.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> texts = [f"The fee of the card is due on day {day} of the month." for day in "123"]
        >>> nodes = [TextNode(text=text) for text in texts]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> app = tune_app(index, run_folder=None)
        >>> app.retriever.retrieve("What is due on day 2?")[0].text
        'The fee of the card is due on day 2 of the month.'
    """
    settings: dict[str, Any] = {
        "also": also,
        "keep_index": keep_index,
        "max_latency_ms": max_latency_ms,
        "max_seconds": max_seconds,
        "run_folder": run_folder,
        "num_workers": num_workers,
        "seed": seed,
        "show_progress": show_progress,
    }
    given: dict[str, Any] = {"traffic": traffic, "judgments": judgments}
    if isinstance(app, RouterQueryEngine):
        if llm is not None or max_calls is not None:
            raise ValueError("llm and max_calls write questions, which a router's tools need apart")
        from llama_index.tuning.app.router.tune import tune_router

        return tune_router(app, questions, **given, **settings)
    return tune_one(app, questions, run_of(**settings), **given, llm=llm, max_calls=max_calls)
