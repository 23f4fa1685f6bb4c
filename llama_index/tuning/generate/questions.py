"""Questions from passages, by an LLM.

The prompts, and the styles of generated queries.
"""

from __future__ import annotations

import logging
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import check_counts, check_options, items_of, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import CallOptions, OnFailure, RunOptions
from llama_index.tuning.asking.parsing import parse_pairs
from llama_index.tuning.asking.results import GeneratedDataset, Outcomes, query_id
from llama_index.tuning.asking.run import default_llm, run_items, turn
from llama_index.tuning.asking.verdicts import parse_yes_no
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.checks import nodes_with_text
from llama_index.tuning.text.passages import copies_in, copies_notes, first_copies, with_copies
from llama_index.tuning.text.sentences import check_threshold, question_key
from llama_index.tuning.vectors.search import near_duplicates

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, MetadataMode


# The old package's own words: a template made for it keeps working.
DEFAULT_QA_GENERATE_PROMPT_TMPL = """\
Context information is below.

---------------------
{context_str}
---------------------

Given the context information and no prior knowledge.
generate only questions based on the below query.

You are a Teacher/ Professor. Your task is to setup \
{num_questions_per_chunk} questions for an upcoming \
quiz/examination. The questions should be diverse in nature \
across the document. Restrict the questions to the \
context information provided."
"""

WITH_ANSWERS = """
Answer each question from the context alone. Reply with a JSON list and nothing else:
[{"question": "…", "answer": "…"}, …]
"""

QUESTION_STYLES: dict[str, str] = {
    "question": "Write each as one full, natural sentence, in the words of a user who has not "
    "read the text.",
    "keywords": "Write each as a search query of two to six keywords, without a question mark.",
    "short": "Write each as a short, colloquial question of at most seven words.",
    "typos": "Write each as a question typed in a hurry: lower case, one or two typos, no care "
    "for punctuation.",
    "situation": "Write each as a user who first tells the situation in a sentence and then asks.",
}
"""Built-in styles: name → instruction. Any other persona is given as a mapping of this kind."""

STYLE = "\nHow the questions are to be written: {instruction}\n"

VERIFY_PROMPT = '''Can the question be answered fully from the passage alone?

Passage: """{context}"""

Question: {question}

Reply with one word: "Yes" or "No".'''

PARAPHRASE_PROMPT = """Rewrite the search query in {count} different ways that other users might \
type, with other words and the same meaning. Keep names, numbers and the language.
{style}
Query: {query}

Reply with the {count} rewritten queries, one per line, and nothing else."""

MULTI_HOP_PROMPT = """Below are {passages} passages of one collection.

{context}

Write {count} question{plural} that can only be answered by combining what all {passages} \
passages say: each passage alone must not be enough. Do not mention passages or texts.
{style}
Reply with the question{plural}, one per line, and nothing else."""

UNANSWERABLE_PROMPT = '''A user searches a collection that holds this passage:

"""{context}"""

Write {count} question{plural} on the same subject that sound as if the passage answered them, \
but that it does not answer: they ask for a detail, date, amount, case or condition that it lacks.
{style}
Reply with the question{plural}, one per line, and nothing else.'''

OUT_OF_SCOPE_PROMPT = '''A search assistant serves a collection with texts such as this one:

"""{context}"""

Write {count} message{plural} that a user might send to it by mistake and that have nothing to do \
with the collection: small talk, other subjects, requests that no search can serve.
{style}
Reply with the message{plural}, one per line, and nothing else.'''

NEGATIVE_PROMPT = '''Does the passage answer the query, even in part?

Query: {query}

Passage: """{context}"""

Reply with one word: "Yes" or "No".'''

DEFAULT_QUERY_DOC_RELEVANCE_PROMPT = '''You decide whether a retrieved document is relevant to \
a query: whether someone who asks the query would want to read it. Reply with one word, "Yes" or \
"No".

Query: How long does a refund take?
Document: """Money that you are owed is back on your card five working days after our decision."""
Relevant: Yes

Query: How long does a refund take?
Document: """A card can be returned at any branch. Returning it is free of charge."""
Relevant: No

Query: {query}
Document: """{document}"""
Relevant:'''

DEFAULT_QUERY_GEN_SYSTEM_PROMPT = """You are an expert in {qa_topic} and write questions that \
users might ask."""

DEFAULT_QUERY_GEN_USER_PROMPT = """Read the document below and write {num_questions_per_chunk} \
questions that it answers. Reply with the questions, one per line, and nothing else.

Document: {context}"""

GRADED_PROMPT = '''How well does the passage answer the query?

3: it answers the query fully.
2: it answers a large part of it.
1: it is on the subject but does not answer the query.
0: it has nothing to do with the query.

Query: {query}

Passage: """{document}"""

Reply with the number alone.'''


def check_template(name: str, template: str, *fields: str, optional: Sequence[str] = ()) -> None:
    """The template is a string that names the fields it needs, and no other."""
    if not isinstance(template, str):
        raise TypeError(f"{name} must be a string, got {type(template).__name__}")
    try:
        found = {part[1].split(".")[0] for part in string.Formatter().parse(template) if part[1]}
    except ValueError as exc:
        raise ValueError(f"{name} is not a format string: {exc}") from None
    missing = sorted(set(fields) - found)
    unknown = sorted(found - {*fields, *optional})
    if missing:
        raise ValueError(f"{name} must hold {', '.join(f'{{{field}}}' for field in missing)}")
    if unknown:
        raise ValueError(
            f"{name} has unknown fields {', '.join(unknown)}; braces that are no field are doubled"
        )


def styles_of(question_styles: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Name → instruction, from names of built-in styles or a mapping of one's own."""
    if question_styles is None:
        return {}
    if isinstance(question_styles, Mapping):
        return dict(question_styles)
    names = [question_styles] if isinstance(question_styles, str) else question_styles
    names = list(items_of("question_styles", names, "styles"))
    for name in names:
        if name not in QUESTION_STYLES:
            raise ValueError(
                f"unknown question style {name!r}; choose from: {', '.join(QUESTION_STYLES)}; "
                "or pass a mapping of name → instruction"
            )
    return {name: QUESTION_STYLES[name] for name in names}


logger = logging.getLogger(__name__)


@own_work
@plain_arguments
def generate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    qa_generate_prompt_tmpl: str = DEFAULT_QA_GENERATE_PROMPT_TMPL,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    save_every: int = 500,
    output_path: PathLike | None = None,
    verbose: bool = True,
    *,
    num_workers: int | None = 8,
    with_answers: bool = False,
    verify: bool = False,
    question_styles: Sequence[str] | Mapping[str, str] | None = None,
    embed_model: BaseEmbedding | None = None,
    near_duplicate: float = 0.95,
    metadata_mode: MetadataMode | str = "embed",
    max_calls: int | None = None,
    options: CallOptions | None = None,
    show_progress: bool = False,
) -> GeneratedDataset:
    """Questions that each passage answers, written by an LLM.

    With `output_path` the run is durable: every finished call is kept in
    `<output_path>.run.jsonl` at once, and the same call made again – after an error, Ctrl-C or
    kill -9 – goes on from there. A file of another run (model, prompt, options) is refused.

    Args:
        nodes: the passages. Their whole text as an index embeds it becomes the corpus; the LLM
            sees it without metadata.
        llm: `Settings.llm` by default.
        qa_generate_prompt_tmpl: with `{context_str}` and, optionally, `{num_questions_per_chunk}`.
        num_questions_per_chunk: how many to ask for; no more are taken from a reply.
        retry_limit: how often a call may fail; waiting for a rate limit does not count.
        on_failure: `"continue"` keeps a failed node in `failures`; `"fail"` raises.
        save_every: finished calls between two flushes of the run file to the disk itself. Each
            is written at once; this only matters if the machine loses power.
        output_path: where the dataset is written as JSON; no file by default.
        verbose: log each failure as a warning.
        num_workers: concurrent calls.
        with_answers: ask for an answer to each question too (`question_answers()`).
        verify: ask the LLM whether each question is answered by its passage; drop it if not.
        question_styles: how the queries shall look: names of `QUESTION_STYLES`, or a mapping of
            a persona's name → instruction. Nodes take turns in them.
        embed_model: drops near-duplicates: questions whose cosine to an earlier one reaches
            `near_duplicate`. The same question of two passages is one query relevant to both.
        near_duplicate: that cosine.
        metadata_mode: which metadata the corpus' texts have: by default what an index embeds, which
            may be absolute file paths; `"none"` for the text alone.
        max_calls: requests that may be sent in this call, tries included.
        options: see `CallOptions`.
        show_progress: show a bar.

    Returns:
        A retrieval dataset with `answers`, `styles`, `failures` and `counts`.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> node = TextNode(text="Refunds take five days.", id_="refunds")
        >>> dataset = generate_qa_embedding_pairs([node], MockLLM(), "How long? {context_str}")
        >>> list(dataset.relevant_docs.values())
        [['refunds']]
    """
    check_counts(num_questions_per_chunk=num_questions_per_chunk)
    run = RunOptions(
        **vars(check_options(options, CallOptions)),
        num_workers=num_workers,
        retry_limit=retry_limit,
        max_calls=max_calls,
        on_failure=on_failure,
        save_every=save_every,
        verbose=verbose,
        show_progress=show_progress,
    )
    nodes = nodes_with_text(nodes, metadata_mode)
    check_threshold("near_duplicate", near_duplicate)
    check_template(
        "qa_generate_prompt_tmpl",
        qa_generate_prompt_tmpl,
        "context_str",
        optional=["num_questions_per_chunk"],
    )
    corpus = RetrievalDataset.from_nodes(nodes, {}, {}, metadata_mode=metadata_mode).corpus
    writer = _Writer(
        template=qa_generate_prompt_tmpl,
        count=num_questions_per_chunk,
        answers=with_answers,
        verify=verify,
        styles=styles_of(question_styles),
    )
    copies = copies_in(corpus)
    once = set(first_copies(corpus, copies))
    outcomes = run_items(
        default_llm(llm),
        [node for node in nodes if node.node_id in once],
        writer.write,
        id_of=lambda node: node.node_id,
        header=writer.header(),
        output_path=output_path,
        description="Generating questions",
        run=run,
    )
    dataset = _assemble(corpus, outcomes)
    for docs in dataset.relevant_docs.values():
        docs[:] = with_copies(docs, copies)
    for note in copies_notes(copies):
        logger.warning("%s, and was asked about once", note)
    if embed_model is not None:
        _drop_near_duplicates(dataset, embed_model, near_duplicate)
    logger.info("generated questions: %s", dataset.counts)
    if output_path is not None:
        dataset.save_json(output_path)
    return dataset


@dataclass
class Written:
    """What came of one node: pairs kept, and what was left out."""

    pairs: list[dict[str, str]]
    style: str | None = None
    unverified: int = 0


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Writes the questions of one node."""

    template: str
    count: int
    answers: bool = False
    verify: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        return {
            "task": "questions",
            "prompt": self.template,
            "num_questions_per_chunk": self.count,
            "with_answers": self.answers,
            "verify": self.verify,
            "question_styles": dict(self.styles),
        }

    async def write(self, calls: Calls, node: BaseNode) -> Written:
        from llama_index.core.schema import MetadataMode

        context = node.get_content(MetadataMode.NONE)
        style = turn(list(self.styles), context)
        pairs = await calls.ask(self._question(node.node_id, context, style))
        if not self.verify:
            return Written(pairs, style)
        kept = []
        for number, pair in enumerate(pairs):
            check = Question(
                "verify",
                f"{node.node_id}#{number}",
                VERIFY_PROMPT.format(context=context, question=pair["question"]),
                parse_yes_no,
                any_id=True,
            )
            if await calls.ask(check):
                kept.append(pair)
        return Written(kept, style, len(pairs) - len(kept))

    def _question(self, node_id: str, context: str, style: str | None) -> Question:
        from llama_index.tuning.asking import parsing as schemas

        prompt = self.template.format(context_str=context, num_questions_per_chunk=self.count)
        if style is not None:
            prompt += STYLE.format(instruction=self.styles[style])
        if self.answers:
            prompt += WITH_ANSWERS
        return Question(
            "questions",
            node_id,
            prompt,
            partial(parse_pairs, limit=self.count, answers=self.answers),
            schemas.answered_question_list if self.answers else schemas.question_list,
            any_id=True,
        )


def _assemble(corpus: dict[str, str], outcomes: Outcomes[Written]) -> GeneratedDataset:
    dataset = GeneratedDataset({}, corpus, {}, failures=outcomes.failures)
    ids: dict[str, str] = {}
    counts = Counter(nodes=len(corpus), failed=len(outcomes.failures))
    for node_id, written in outcomes.results.items():
        counts["unverified"] += written.unverified
        for pair in written.pairs:
            key = question_key(pair["question"])
            if key in ids:
                counts["duplicates"] += 1
                docs = dataset.relevant_docs[ids[key]]
                docs.extend([node_id] if node_id not in docs else [])
                continue
            id_ = ids[key] = query_id(node_id, pair["question"])
            dataset.queries[id_] = pair["question"]
            dataset.relevant_docs[id_] = [node_id]
            if "answer" in pair:
                dataset.answers[id_] = pair["answer"]
            if written.style is not None:
                dataset.styles[id_] = written.style
    counts["questions"] = len(dataset.queries)
    names = ("nodes", "failed", "questions", "duplicates", "unverified")
    dataset.counts = {name: counts[name] for name in names}
    return dataset


def _drop_near_duplicates(
    dataset: GeneratedDataset, embed_model: BaseEmbedding, threshold: float
) -> None:
    from llama_index.tuning.vectors.embedder import Embedder

    ids = list(dataset.queries)
    rows: list[int] = []
    if ids:
        vectors = Embedder(embed_model).queries(list(dataset.queries.values()))
        rows = near_duplicates(vectors, threshold)
    for row in rows:
        for part in (dataset.queries, dataset.relevant_docs, dataset.answers, dataset.styles):
            part.pop(ids[row], None)
    dataset.counts["near_duplicates"] = len(rows)
    dataset.counts["questions"] = len(dataset.queries)
