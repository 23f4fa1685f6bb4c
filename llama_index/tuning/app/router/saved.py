"""A tuned router on disk: its tools' apps, its selector and its judge in one folder."""

from __future__ import annotations

from pathlib import Path

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RouterQueryEngine

from llama_index.tuning import artifacts
from llama_index.tuning.app.model import load_app
from llama_index.tuning.app.router.model import TunedRouter, tools_of
from llama_index.tuning.app.saved import JUDGE, load_judge, takes_reranker
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.routers.serving.selector import TunedSelector

KIND = "tuned_router_app"
_APPS, _SELECTOR = "apps", "selector"


def save(path: artifacts.PathLike, tuned: TunedRouter) -> None:
    """Write a router's tuned parts; what stayed as it was is the app's own."""
    artifacts.check_writable(path)
    selects = isinstance(tuned.selector, TunedSelector)
    with artifacts.replacing_folder(path) as folder:
        config = {"apps": list(tuned.apps), "selects": selects, "notes": tuned.notes}
        artifacts.write_component(folder, KIND, config, {}, _CARD)
        for number, app in enumerate(tuned.apps.values()):
            app.save(folder / _APPS / str(number))
        if isinstance(tuned.selector, TunedSelector):
            tuned.selector.save(folder / _SELECTOR)
        if tuned.evaluator is not None:
            tuned.evaluator.save(folder / JUDGE)
        tuned.report.save_json(folder / artifacts.REPORT)


def load_router_app(
    path: artifacts.PathLike,
    router: RouterQueryEngine,
    reranker: BaseNodePostprocessor | None = None,
) -> TunedRouter:
    """What `save` wrote, over the router that it was tuned for; see `load_app`.

    Args:
        path: the folder.
        router: whose tools have the names that they had.
        reranker: for the tools that are served with one that was given.

    Raises:
        ArtifactError: no tuned router, a damaged one, or one of other tools.
    """
    from llama_index.tuning.routers.report import RouterReport

    config = artifacts.read_config(path, KIND)
    names, selects, notes = (config.get(name) for name in ("apps", "selects", "notes"))
    if not isinstance(names, list) or not isinstance(notes, list) or not isinstance(selects, bool):
        raise ArtifactError(f"{path} is damaged: it does not say which tools it was tuned for")
    folder = Path(path)
    engines = {name: engine for name, engine, _ in tools_of(router)}
    if missing := [name for name in names if name not in engines]:
        raise ArtifactError(
            f"{path} was tuned for the tools {', '.join(names)}; the router has no {missing[0]!r}"
        )
    apps = {}
    for number, name in enumerate(names):
        part = folder / _APPS / str(number)
        given = reranker if takes_reranker(part) else None
        apps[name] = load_app(part, engines[name], reranker=given)
    model = next((app.seen.embed_model for app in apps.values() if app.seen.embed_model), None)
    try:
        report = RouterReport.from_json(folder / artifacts.REPORT)
    except OSError as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    assert isinstance(report, RouterReport)
    selector = TunedSelector.load(folder / _SELECTOR, model) if selects else router._selector
    artifacts.check_intact(path)
    judge = load_judge(folder, model)
    return TunedRouter(router, apps, selector, report, [*map(str, notes)], judge)


_CARD = """# A tuned router

Made by llama-index-tuning. Use it with

    from llama_index.tuning import load_app
    app = load_app("this folder", router_query_engine)
    query_engine = app.as_query_engine()
"""
