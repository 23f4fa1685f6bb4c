"""Labels of relevance for retrieved passages, by an LLM, within a budget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from llama_index.tuning._checks import items_of, of_type, plain_arguments, whole_number
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.asking.run import default_llm, run_file_of, run_items, run_options
from llama_index.tuning.asking.verdicts import parse_grade, parse_yes_no
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.questions import (
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    GRADED_PROMPT,
    check_template,
)

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import LLM

Scale = Literal["yes_no", "graded"]

HIGHEST_GRADE = 3
_REPLY_TOKENS = 2


@dataclass
class CrossEncoderFinetuningDatasetSample:
    """A query, a passage and how relevant it is; the old package's row, with ids.

    Args:
        query: text.
        context: text of the passage.
        score: 1 or 0; 0 to 3 on the graded scale.
        query_id: of the query.
        node_id: of the passage.
    """

    query: str
    context: str
    score: int
    query_id: str = ""
    node_id: str = ""


class RelevanceLabels(list[CrossEncoderFinetuningDatasetSample]):
    """A list of samples, with what became of the others beside it.

    Attributes:
        failures: pairs whose call failed.
        not_asked: pairs that `max_calls` left out.
        requests: how many were sent to the LLM in this run.
        estimate: of a dry run, what the labels would cost.
    """

    @plain_arguments
    def __init__(
        self,
        samples: Iterable[CrossEncoderFinetuningDatasetSample] = (),
        *,
        failures: Sequence[Failure] = (),
        not_asked: int = 0,
        requests: int = 0,
        estimate: CallEstimate | None = None,
    ) -> None:
        super().__init__(items_of("samples", samples, "samples"))
        self.failures = list(items_of("failures", failures, "failures"))
        self.not_asked = whole_number("not_asked", not_asked, 0)
        self.requests = whole_number("requests", requests, 0)
        if estimate is not None:
            of_type("estimate", estimate, CallEstimate)
        self.estimate = estimate

    def save_jsonl(self, path: PathLike) -> None:
        """One JSON object a line."""
        rows = (json.dumps(asdict(sample), ensure_ascii=False) for sample in self)
        write_text_atomic(path, "".join(f"{row}\n" for row in rows))

    @classmethod
    @plain_arguments
    def from_jsonl(cls, path: PathLike) -> RelevanceLabels:
        """Load what `save_jsonl` wrote."""
        samples = []
        for number, row in read_json_lines(path):
            try:
                samples.append(CrossEncoderFinetuningDatasetSample(**row))
            except TypeError:
                raise DatasetError(
                    f"{path}, line {number} must have query, context and score, and may have "
                    f"query_id and node_id; it has {', '.join(row)}"
                ) from None
        return cls(samples)


@dataclass(frozen=True)
class CallEstimate:
    """What labelling would cost, before the first call.

    Args:
        calls: pairs to label, tries after errors not counted.
        calls_within_budget: at most `max_calls` of them.
        prompt_tokens: of all those calls, by LlamaIndex's tokenizer.
        reply_tokens: a word for each.
    """

    calls: int
    calls_within_budget: int
    prompt_tokens: int
    reply_tokens: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.calls_within_budget} of {self.calls} calls, about {self.prompt_tokens} prompt "
            f"and {self.reply_tokens} reply tokens"
        )


@own_work
@plain_arguments
def label_relevance(
    queries: Sequence[str] | Mapping[str, str],
    retriever: BaseRetriever,
    llm: LLM | None = None,
    *,
    scale: Scale = "yes_no",
    prompt: str | None = None,
    dry_run: bool = False,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> RelevanceLabels:
    """Ask an LLM how relevant each retrieved passage is to its query.

    Under a budget (`run.max_calls`) the best-ranked passages of all queries come first.

    Args:
        queries: texts, or query id → text.
        retriever: what the app uses; its own top k is the depth.
        llm: `Settings.llm` by default.
        scale: `"yes_no"` gives 1 or 0; `"graded"` 0 to 3.
        prompt: with `{query}` and `{document}`; one of its own for each scale by default.
        dry_run: retrieve, ask nothing, and give an empty list whose `estimate` holds the calls
            and tokens that it would take.
        output_path: where the labels are written (`save_jsonl`), with the run file beside it.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(text="The fee is 5 euros.")]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> plan = label_relevance(["What is the fee?"], index.as_retriever(), dry_run=True)
        >>> plan.estimate.calls
        1
    """
    template = relevance_prompt(scale, prompt)
    run = run_options(run)
    run_file_of(output_path)
    texts = queries_by_id(queries)
    asked = None if dry_run else default_llm(llm)
    pairs = _pairs(texts, retriever, run.show_progress)
    if dry_run:
        prompts = [pair.prompt(template) for pair in pairs]
        return RelevanceLabels(estimate=_estimate(prompts, run.max_calls))
    labels = label_pairs(
        pairs, asked, scale=scale, template=template, output_path=output_path, run=run
    )
    if output_path is not None:
        labels.save_jsonl(output_path)
    return labels


def relevance_prompt(scale: Scale, prompt: str | None) -> str:
    """The prompt given, if it can be one; else the scale's own.

    Raises:
        ValueError: there is no such scale, or the prompt lacks a field.
    """
    if scale not in ("yes_no", "graded"):
        raise ValueError(f"unknown scale {scale!r}; choose one of: yes_no, graded")
    default = DEFAULT_QUERY_DOC_RELEVANCE_PROMPT if scale == "yes_no" else GRADED_PROMPT
    check_template("prompt", prompt or default, "query", "document")
    return prompt or default


def label_pairs(
    pairs: Sequence[Pair],
    llm: LLM | None,
    *,
    scale: Scale,
    template: str,
    output_path: PathLike | None,
    run: RunOptions,
) -> RelevanceLabels:
    """The grade of each pair, by an LLM; calls are kept beside `output_path`."""
    grade = parse_yes_no if scale == "yes_no" else partial(parse_grade, highest=HIGHEST_GRADE)

    async def label(calls: Calls, pair: Pair) -> int:
        question = Question("relevance", pair.id, pair.prompt(template), grade, any_id=True)
        return int(await calls.ask(question))

    outcomes = run_items(
        llm,
        pairs,
        label,
        id_of=lambda pair: pair.id,
        header={"task": "relevance", "prompt": template, "scale": scale},
        output_path=output_path,
        description="Labelling",
        run=run,
    )
    return RelevanceLabels(
        (pair.sample(outcomes.results[pair.id]) for pair in pairs if pair.id in outcomes.results),
        failures=outcomes.failures,
        not_asked=len(outcomes.not_asked),
        requests=outcomes.requests,
    )


def queries_by_id(queries: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Texts by id: those of a list are numbered; empty ones are left out."""
    if isinstance(queries, (str, bytes)) or not isinstance(queries, Iterable):
        kind = "a string" if isinstance(queries, str) else type(queries).__name__
        hint = "; pass its .queries" if hasattr(queries, "queries") else ""
        raise TypeError(
            f"queries must be a list of texts or a mapping of id → text, got {kind}{hint}"
        )
    if not isinstance(queries, Mapping):
        queries = {f"q{number}": text for number, text in enumerate(queries)}
    for id_, text in queries.items():
        if not isinstance(text, str):
            raise TypeError(f"query {id_!r} must be a text, got {type(text).__name__}")
    return {id_: text for id_, text in queries.items() if text.strip()}


@dataclass(frozen=True)
class Pair:
    """A query and one of its retrieved passages."""

    query_id: str
    query: str
    node_id: str
    context: str
    rank: int

    @property
    def id(self) -> str:
        return f"{self.query_id}/{self.node_id}"

    def prompt(self, template: str) -> str:
        return template.format(query=self.query, document=self.context)

    def sample(self, score: int) -> CrossEncoderFinetuningDatasetSample:
        return CrossEncoderFinetuningDatasetSample(
            self.query, self.context, score, self.query_id, self.node_id
        )


def _pairs(queries: Mapping[str, str], retriever: BaseRetriever, show_progress: bool) -> list[Pair]:
    """Every retrieved passage once for each query, the first ranks of all queries first."""
    from llama_index.core.schema import MetadataMode

    pairs: dict[str, Pair] = {}
    for id_, text in progress(queries.items(), show_progress, "Retrieving", len(queries)):
        for rank, found in enumerate(retriever.retrieve(text)):
            context = found.node.get_content(MetadataMode.NONE)
            pair = Pair(id_, text, found.node.node_id, context, rank)
            pairs.setdefault(pair.id, pair)
    return sorted(pairs.values(), key=lambda pair: pair.rank)


def _estimate(prompts: Sequence[str], max_calls: int | None) -> CallEstimate:
    from llama_index.core import get_tokenizer

    tokenizer = get_tokenizer()
    asked = prompts if max_calls is None else prompts[:max_calls]
    return CallEstimate(
        calls=len(prompts),
        calls_within_budget=len(asked),
        prompt_tokens=sum(len(tokenizer(prompt)) for prompt in asked),
        reply_tokens=_REPLY_TOKENS * len(asked),
    )
