"""The tuned router: ready objects of LlamaIndex, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.router import saved
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.datasets.routing import RoutingDataset

if TYPE_CHECKING:
    from llama_index.tuning.judges.judge import TunedJudge
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
        evaluator: the judge of answers; `None` if no verdicts could teach one.
    """

    router: RouterQueryEngine
    apps: dict[str, TunedApp]
    selector: BaseSelector
    report: RouterReport
    notes: list[str] = field(default_factory=list)
    evaluator: TunedJudge | None = None

    def __repr__(self) -> str:
        return f"TunedRouter({self.selector!r}, apps: {', '.join(self.apps) or 'none'})"

    def as_query_engine(self, **arguments: Any) -> RouterQueryEngine:
        """The router with the tuned selector and tools.

        Args:
            **arguments: of each tool's `TunedApp.as_query_engine`; without any, what the tool
                answers with is kept.

        Raises:
            ValueError: `filters` are given, and a tool that was not tuned would not keep to them.
        """
        others = [name for name, *_ in tools_of(self.router) if name not in self.apps]
        if others and arguments.get("filters") is not None:
            raise ValueError(f"filters: {', '.join(others)} was not tuned and keeps to none")
        tools = [
            QueryEngineTool(
                self.apps[name].as_query_engine(**arguments) if name in self.apps else engine,
                metadata,
            )
            for name, engine, metadata in tools_of(self.router)
        ]
        return RouterQueryEngine(
            self.selector, tools, llm=self.router._llm, summarizer=self.router._summarizer
        )

    def save(self, path: PathLike) -> None:
        """Write the tools' apps, the selector, the judge and the report, for `load_app`."""
        saved.save(path, self.apps, self.selector, self.report, self.notes, self.evaluator)

    def __str__(self) -> str:
        lines = [str(self.report)]
        lines += [f"{name}: {app.report.sentence}" for name, app in self.apps.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def tools_of(router: RouterQueryEngine) -> list[tuple[str, Any, Any]]:
    """Each choice's name, query engine and metadata."""
    names = RoutingDataset.from_router(router).choices
    return list(zip(names, router._query_engines, router._metadatas, strict=True))
