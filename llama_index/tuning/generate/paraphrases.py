"""The same question in other users' words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llama_index.tuning._checks import check_counts, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking import parsing as schemas
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.asking.results import GeneratedDataset, query_id
from llama_index.tuning.asking.run import default_llm, run_items, run_options, turn
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.generate.questions import PARAPHRASE_PROMPT, STYLE, styles_of
from llama_index.tuning.text.sentences import question_key

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


@own_work
@plain_arguments
def generate_paraphrases(
    dataset: RetrievalDataset,
    llm: LLM | None = None,
    *,
    num_paraphrases: int = 2,
    question_styles: Sequence[str] | Mapping[str, str] | None = None,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> GeneratedDataset:
    """The queries, and each in other words, relevant to the same documents.

    Split the queries first (`dataset.split()`), then paraphrase the training part: a paraphrase
    in the test set of a training query measures nothing.

    Args:
        dataset: the queries; its corpus is taken over.
        llm: `Settings.llm` by default.
        num_paraphrases: of each query.
        question_styles: see `generate_qa_embedding_pairs`; queries take turns in them.
        output_path: where the dataset is written as JSON, with the run file beside it.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> dataset = RetrievalDataset({"q": "Fee?"}, {"d": "It is 5 euros."}, {"q": ["d"]})
        >>> generate_paraphrases(dataset, MockLLM()).relevant_docs["q"]
        ['d']
    """
    dataset = RetrievalDataset.coerce(dataset)
    check_counts(num_paraphrases=num_paraphrases)
    writer = _Writer(dataset, num_paraphrases, styles_of(question_styles))
    outcomes = run_items(
        default_llm(llm),
        list(dataset.queries),
        writer.write,
        id_of=str,
        header={
            "task": "paraphrases",
            "prompt": PARAPHRASE_PROMPT,
            "num_paraphrases": num_paraphrases,
            "question_styles": dict(writer.styles),
        },
        output_path=output_path,
        description="Paraphrasing",
        run=run_options(run),
    )
    made = GeneratedDataset({}, dataset.corpus, {}, failures=outcomes.failures)
    made.queries.update(dataset.queries)
    made.relevant_docs.update({id_: list(d) for id_, d in dataset.relevant_docs.items()})
    duplicates = _add(made, dataset, outcomes.results, list(writer.styles))
    made.counts = {
        "queries": len(dataset),
        "failed": len(outcomes.failures),
        "paraphrases": len(made) - len(dataset),
        "duplicates": duplicates,
    }
    if output_path is not None:
        made.save_json(output_path)
    return made


def _add(
    made: GeneratedDataset,
    dataset: RetrievalDataset,
    paraphrases: Mapping[str, list[str]],
    styles: Sequence[str],
) -> int:
    """Add what is new; how many were not."""
    seen = set(map(question_key, dataset.queries.values()))
    duplicates = 0
    for source, texts in paraphrases.items():
        for text in texts:
            if question_key(text) in seen:
                duplicates += 1
                continue
            seen.add(question_key(text))
            id_ = query_id(source, text)
            made.queries[id_] = text
            made.relevant_docs[id_] = list(dataset.relevant_docs[source])
            style = turn(styles, dataset.queries[source])
            if style is not None:
                made.styles[id_] = style
    return duplicates


@dataclass(frozen=True)
class _Writer:
    dataset: RetrievalDataset
    count: int
    styles: Mapping[str, str]

    async def write(self, calls: Calls, id_: str) -> list[str]:
        style = turn(list(self.styles), self.dataset.queries[id_])
        prompt = PARAPHRASE_PROMPT.format(
            query=self.dataset.queries[id_],
            count=self.count,
            style=STYLE.format(instruction=self.styles[style]) if style else "",
        )
        parse = partial(parse_questions, limit=self.count)
        found: list[str] = await calls.ask(
            Question("paraphrases", id_, prompt, parse, schemas.question_list)
        )
        return found
