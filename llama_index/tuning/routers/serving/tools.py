"""The few tools that an agent's LLM should see for a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.objects import ObjectRetriever, SimpleObjectNodeMapping
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType, TextNode
from llama_index.core.tools.types import BaseTool, ToolMetadata

from llama_index.tuning._checks import items_of, of_type, plain_arguments
from llama_index.tuning.datasets.formats.routing import called
from llama_index.tuning.routers.serving.answers import Prediction
from llama_index.tuning.routers.serving.selector import TunedSelector


class TunedToolRetriever(ObjectRetriever[BaseTool]):
    """Top-k tools by a tuned selector: `tool_retriever=` of an agent.

    Args:
        selector: trained on the tools' names.
        tools: all of them; one that was not trained is scored by its description.
        top_k: how many an agent is shown, at least 1.
        always: names of tools that are shown whatever is asked, beside the `top_k`.

    Example:
        >>> retriever = TunedToolRetriever(selector, tools, top_k=5)  # doctest: +SKIP
        >>> agent = FunctionAgent(tool_retriever=retriever, llm=llm)  # doctest: +SKIP
    """

    @plain_arguments
    def __init__(
        self,
        selector: TunedSelector,
        tools: Iterable[BaseTool],
        *,
        top_k: int = 5,
        always: Sequence[str] = (),
    ) -> None:
        if not isinstance(selector, TunedSelector):
            raise TypeError(f"selector must be a TunedSelector, got {type(selector).__name__}")
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k must be a whole number >= 1, got {top_k!r}")
        self.tools: dict[str, BaseTool] = {}
        tools = list(items_of("tools", tools, "tools"))
        for tool in tools:
            of_type("tools", tool, BaseTool, "tools of LlamaIndex")
        names = called([(tool.metadata.get_name(), tool.metadata.description) for tool in tools])
        for tool, (name, _) in zip(tools, names, strict=True):
            if name in self.tools:
                raise ValueError(f"tools must differ in name or description, {name!r} occurs twice")
            self.tools[name] = tool
        if not self.tools:
            raise ValueError("tools must hold at least one tool, got none")
        unknown = [name for name in always if name not in self.tools]
        if unknown:
            raise ValueError(f"always names tools that were not given: {', '.join(unknown)}")
        self.selector, self.top_k, self.always = selector, top_k, tuple(always)
        super().__init__(_Ranked(self), SimpleObjectNodeMapping.from_objects([]))

    def __repr__(self) -> str:
        return f"TunedToolRetriever({len(self.tools)} tools, top_k={self.top_k}, {self.selector!r})"

    def retrieve(self, str_or_query_bundle: QueryType) -> list[BaseTool]:
        """The tools for a request, the best first."""
        query = _text(str_or_query_bundle)
        if not query.strip():
            return self._first()
        return self._chosen(self.selector.predict(query, self._metadata()))

    async def aretrieve(self, str_or_query_bundle: QueryType) -> list[BaseTool]:
        """`retrieve`, async."""
        query = _text(str_or_query_bundle)
        if not query.strip():
            return self._first()
        return self._chosen(await self.selector.apredict(query, self._metadata()))

    def _metadata(self) -> list[ToolMetadata]:
        return [
            ToolMetadata(description=tool.metadata.description, name=name)
            for name, tool in self.tools.items()
        ]

    def _chosen(self, found: Prediction) -> list[BaseTool]:
        names = dict.fromkeys([*found.names[: self.top_k], *self.always])
        return [self.tools[name] for name in names]

    def _first(self) -> list[BaseTool]:
        # An agent may ask with an empty message, such as one that only holds an image.
        names = dict.fromkeys([*list(self.tools)[: self.top_k], *self.always])
        return [self.tools[name] for name in names]


class _Ranked(BaseRetriever):
    """The same ranking as nodes, for what reads `ObjectRetriever.retriever`."""

    def __init__(self, owner: TunedToolRetriever) -> None:
        super().__init__()
        self._owner = owner

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        owner = self._owner
        found = owner.selector.predict(query_bundle.query_str, owner._metadata())
        ranked = zip(found.names, found.probabilities, strict=True)
        return [
            NodeWithScore(
                node=TextNode(text=owner.tools[name].metadata.description, id_=name), score=chance
            )
            for name, chance in list(ranked)[: owner.top_k]
        ]


def _text(query: QueryType) -> str:
    return query if isinstance(query, str) else query.query_str
