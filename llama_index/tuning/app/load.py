"""`load_app`: what was saved, over the app that it was tuned for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RouterQueryEngine

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.app import saved
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.artifacts import PathLike

if TYPE_CHECKING:
    from llama_index.tuning.app.router.model import TunedRouter


@overload
def load_app(
    path: PathLike, app: RouterQueryEngine, *, reranker: BaseNodePostprocessor | None = None
) -> TunedRouter: ...


@overload
def load_app(
    path: PathLike, app: Any, *, reranker: BaseNodePostprocessor | None = None
) -> TunedApp: ...


@plain_arguments
def load_app(
    path: PathLike, app: Any, *, reranker: BaseNodePostprocessor | None = None
) -> TunedApp | TunedRouter:
    """The tuned app that `save` wrote, over the app that it was tuned for.

    Args:
        path: the folder.
        app: the index, retriever or query engine, as `tune_app` took it. Nodes may have come and
            gone since.
        reranker: the one of `tune_app(also=[…])`, if it is what is served; it is not saved.

    Raises:
        ArtifactError: no tuned app, a damaged one, another index, or another embedding model.
        TypeError: `app` is none of those.

    Example:
        >>> app = load_app("tuned", index)  # doctest: +SKIP
        >>> app.as_query_engine(llm=llm).query("How long do refunds take?")  # doctest: +SKIP
    """
    if isinstance(app, RouterQueryEngine):
        from llama_index.tuning.app.router.load import load_router

        return load_router(path, app, reranker)
    return TunedApp(**saved.read(path, app, reranker))
