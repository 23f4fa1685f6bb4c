"""A tuned router on disk: its tools' apps, its selector and its judge in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import artifacts
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.saved import JUDGE, load_judge
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.routers.serving.selector import TunedSelector

if TYPE_CHECKING:
    from llama_index.tuning.judges.judge import TunedJudge
    from llama_index.tuning.routers.report import RouterReport

KIND = "tuned_router_app"
_APPS, _SELECTOR = "apps", "selector"


def save(
    path: artifacts.PathLike,
    apps: Mapping[str, TunedApp],
    selector: BaseSelector,
    report: RouterReport,
    notes: Sequence[str],
    evaluator: TunedJudge | None,
) -> None:
    """Write a router's tuned parts; what stayed as it was is the app's own."""
    artifacts.check_writable(path)
    selects = isinstance(selector, TunedSelector)
    with artifacts.replacing_folder(path) as folder:
        config = {"apps": list(apps), "selects": selects, "notes": list(notes)}
        artifacts.write_component(folder, KIND, config, {}, _CARD)
        for number, app in enumerate(apps.values()):
            app.save(folder / _APPS / str(number))
        if isinstance(selector, TunedSelector):
            selector.save(folder / _SELECTOR)
        if evaluator is not None:
            evaluator.save(folder / JUDGE)
        report.save_json(folder / artifacts.REPORT)


@dataclass(frozen=True)
class Read:
    """What a folder says of a router: its tools' folders, the report, and whether it selects."""

    apps: dict[str, Path]
    selects: bool
    report: RouterReport
    notes: list[str]


def read(path: artifacts.PathLike, tools: Sequence[str]) -> Read:
    """What `save` wrote of a router with these tools, but for its parts.

    Raises:
        ArtifactError: no tuned router, a damaged one, or one of other tools.
    """
    from llama_index.tuning.routers.report import RouterReport

    config = artifacts.read_config(path, KIND)
    names, selects, notes = (config.get(name) for name in ("apps", "selects", "notes"))
    if not isinstance(names, list) or not isinstance(notes, list) or not isinstance(selects, bool):
        raise ArtifactError(f"{path} is damaged: it does not say which tools it was tuned for")
    if missing := [name for name in names if name not in tools]:
        raise ArtifactError(
            f"{path} was tuned for the tools {', '.join(names)}; the router has no {missing[0]!r}"
        )
    folder = Path(path)
    try:
        report = RouterReport.from_json(folder / artifacts.REPORT)
    except OSError as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    assert isinstance(report, RouterReport)
    apps = {name: folder / _APPS / str(number) for number, name in enumerate(names)}
    return Read(apps, selects, report, [*map(str, notes)])


def read_parts(
    path: artifacts.PathLike, model: BaseEmbedding | None, *, selects: bool
) -> tuple[TunedSelector | None, TunedJudge | None]:
    """The tuned selector and the judge, if there are any, of an intact folder."""
    selector = TunedSelector.load(Path(path) / _SELECTOR, model) if selects else None
    artifacts.check_intact(path)
    return selector, load_judge(Path(path), model)


_CARD = """# A tuned router

Made by llama-index-tuning. Use it with

    from llama_index.tuning import load_app
    app = load_app("this folder", router_query_engine)
    query_engine = app.as_query_engine()
"""
