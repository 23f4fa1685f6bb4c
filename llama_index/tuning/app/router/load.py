"""A saved router, over the one that it was tuned for."""

from __future__ import annotations

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RouterQueryEngine

from llama_index.tuning.app import saved
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.router.model import TunedRouter, tools_of
from llama_index.tuning.app.router.saved import read, read_parts
from llama_index.tuning.artifacts import PathLike


def load_router(
    path: PathLike, router: RouterQueryEngine, reranker: BaseNodePostprocessor | None = None
) -> TunedRouter:
    """What `TunedRouter.save` wrote; see `load_app`.

    Args:
        path: the folder.
        router: whose tools have the names that they had.
        reranker: for the tools that are served with one that was given.

    Raises:
        ArtifactError: no tuned router, a damaged one, or one of other tools.
    """
    engines = {name: engine for name, engine, _ in tools_of(router)}
    found = read(path, list(engines))
    apps = {}
    for name, folder in found.apps.items():
        given = reranker if saved.takes_reranker(folder) else None
        apps[name] = TunedApp(**saved.read(folder, engines[name], given))
    model = next((app.seen.embed_model for app in apps.values() if app.seen.embed_model), None)
    selector, judge = read_parts(path, model, selects=found.selects)
    return TunedRouter(router, apps, selector or router._selector, found.report, found.notes, judge)
