"""Training rows of a cross-encoder from documents, under the old package's names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from llama_index.tuning._checks import check_counts, items_of, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.asking.run import default_llm, run_items, run_options
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.questions import (
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    DEFAULT_QUERY_GEN_SYSTEM_PROMPT,
    DEFAULT_QUERY_GEN_USER_PROMPT,
    check_template,
)
from llama_index.tuning.generate.relevance import RelevanceLabels, label_relevance
from llama_index.tuning.text.sentences import question_key

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, Document


@own_work
@plain_arguments
def generate_ce_fine_tuning_dataset(
    documents: Sequence[Document],
    questions_list: Sequence[str],
    max_chunk_length: int = 1000,
    llm: LLM | None = None,
    qa_doc_relevance_prompt: str = DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    top_k: int = 8,
    *,
    embed_model: BaseEmbedding | None = None,
    dry_run: bool = False,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> RelevanceLabels:
    """Yes/no labels of an LLM for the passages that each question retrieves.

    The old function with its arguments; `label_relevance` takes a retriever of your own.

    Args:
        documents: cut into chunks, embedded and indexed.
        questions_list: the questions; empty ones are left out.
        max_chunk_length: tokens of a chunk.
        llm: `Settings.llm` by default.
        qa_doc_relevance_prompt: with `{query}` and `{document}`.
        top_k: passages retrieved for each question.
        embed_model: `Settings.embed_model` by default.
        dry_run: only estimate the calls; nothing but the embeddings is computed.
        output_path: where the labels are written, with the run file beside it.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core import Document, MockEmbedding
        >>> documents = [Document(text="The fee is 5 euros.")]
        >>> embed_model = MockEmbedding(embed_dim=4)
        >>> plan = generate_ce_fine_tuning_dataset(
        ...     documents, ["What is the fee?"], embed_model=embed_model, dry_run=True
        ... )
        >>> plan.estimate.calls
        1
    """
    check_counts(top_k=top_k)
    from llama_index.core import VectorStoreIndex

    nodes = _chunks(documents, max_chunk_length)
    index = VectorStoreIndex(
        nodes, embed_model=embed_model, show_progress=run is not None and run.show_progress
    )
    return label_relevance(
        list(questions_list),
        index.as_retriever(similarity_top_k=top_k),
        llm,
        prompt=qa_doc_relevance_prompt,
        dry_run=dry_run,
        output_path=output_path,
        run=run,
    )


@own_work
@plain_arguments
def generate_synthetic_queries_over_documents(
    documents: Sequence[Document],
    num_questions_per_chunk: int = 5,
    max_chunk_length: int = 3000,
    qa_topic: str = "everything",
    llm: LLM | None = None,
    qa_generate_system_msg: str = DEFAULT_QUERY_GEN_SYSTEM_PROMPT,
    qa_generate_user_msg: str = DEFAULT_QUERY_GEN_USER_PROMPT,
    *,
    run: RunOptions | None = None,
) -> list[str]:
    """Questions over documents, without their sources: the old function.

    `generate_qa_embedding_pairs` also says which passage answers which question, keeps failures
    and resumes.

    Args:
        documents: cut into chunks.
        num_questions_per_chunk: how many to ask for.
        max_chunk_length: tokens of a chunk.
        qa_topic: filled into the system message.
        llm: `Settings.llm` by default.
        qa_generate_system_msg: with `{qa_topic}` or `{num_questions_per_chunk}`, if wanted.
        qa_generate_user_msg: with `{context}` and, if wanted, `{num_questions_per_chunk}`.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core import Document
        >>> from llama_index.core.llms import MockLLM
        >>> documents = [Document(text="The fee is 5 euros.")]
        >>> len(generate_synthetic_queries_over_documents(documents, llm=MockLLM())) > 0
        True
    """
    count = num_questions_per_chunk
    items_of("documents", documents, "documents")
    check_counts(num_questions_per_chunk=count)
    optional = ["num_questions_per_chunk", "qa_topic"]
    check_template("qa_generate_system_msg", qa_generate_system_msg, optional=optional)
    check_template("qa_generate_user_msg", qa_generate_user_msg, "context", optional=optional)
    system = qa_generate_system_msg.format(num_questions_per_chunk=count, qa_topic=qa_topic)

    async def ask(calls: Calls, node: BaseNode) -> list[str]:
        user = qa_generate_user_msg.format(
            num_questions_per_chunk=count, qa_topic=qa_topic, context=node.get_content()
        )
        parse = partial(parse_questions, limit=count)
        question = Question("questions", node.node_id, f"{system}\n\n{user}", parse)
        found: list[str] = await calls.ask(question)
        return found

    outcomes = run_items(
        default_llm(llm),
        _chunks(documents, max_chunk_length),
        ask,
        id_of=lambda node: node.node_id,
        header={"task": "queries"},
        output_path=None,
        description="Generating questions",
        run=run_options(run),
    )
    distinct = {question_key(text): text for found in outcomes.results.values() for text in found}
    return list(distinct.values())


def _chunks(documents: Sequence[Document], max_chunk_length: int) -> list[BaseNode]:
    from llama_index.core import get_tokenizer
    from llama_index.core.node_parser import TokenTextSplitter

    check_counts(max_chunk_length=max_chunk_length)
    splitter = TokenTextSplitter(
        separator=" ",
        chunk_size=max_chunk_length,
        chunk_overlap=0,
        backup_separators=["\n"],
        tokenizer=get_tokenizer(),
    )
    nodes = splitter.get_nodes_from_documents(list(documents))
    if not nodes:
        raise DatasetError("documents hold no text")
    return nodes
