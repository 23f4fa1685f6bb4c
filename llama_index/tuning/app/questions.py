"""The questions that decide: given, asked by users, or sentences that stand in for questions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index.tuning._arrays import Ints
from llama_index.tuning._files import read_json
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.collect.traffic import Traffic
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.datasets.formats.tables import (
    RowsLeftOutWarning,
    check_columns,
    read_table,
    under_names,
)
from llama_index.tuning.datasets.moved import over_nodes
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.questions import generate_qa_embedding_pairs
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.text.passages import copies_in, copies_notes, with_copies

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

Kind = Literal["questions", "generated questions", "stand-ins"]

LEAST = 30
"""Questions that can teach; fewer only measure, and sentences of the documents teach."""
FOLDS = 5
"""Parts that the questions are shared out to."""
MANY = 1000
"""From so many questions on, a fifth is measured; fewer are all measured in turn."""
TOGETHER = 0.25
"""Share of the documents whose questions stay in one fold: for them the document is new."""
STAND_INS = 200
"""Sentences that stand in for questions."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions over the app's nodes, and in which fold each is held out.

    Attributes:
        dataset: each text once; the corpus is what the app may find.
        kind: what they are: real ones, generated ones, or sentences of the documents.
        fold: of each question, from 0, shape `(n,)`.
        seen: whether a document of the question has questions in other folds, shape `(n,)`.
        notes: what was done to them.
    """

    dataset: RetrievalDataset
    kind: Kind
    fold: Ints
    seen: np.ndarray[Any, np.dtype[np.bool_]]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def teach(self) -> bool:
        """Whether parts are learnt from them."""
        return self.kind != "stand-ins" and len(self) >= LEAST

    @property
    def texts(self) -> list[str]:
        return list(self.dataset.queries.values())

    @property
    def held_out_folds(self) -> list[int]:
        """Folds that are measured: all in turn, or of many questions the first alone."""
        return [0] if len(self) >= MANY else list(range(int(self.fold.max()) + 1))


GENERATE = "generate"
"""What `questions` is where an LLM is to write them."""
CALLS_A_QUESTION = 2
"""One that writes it, and one that says whether its passage answers it."""
STYLES = ("question", "short", "situation")


@dataclass(frozen=True, eq=False)
class Writing:
    """Questions that an LLM is to write.

    Attributes:
        llm: the writer.
        max_calls: requests that may be sent.
        file: where they are kept; the run file that a killed run goes on from lies beside it.
        num_workers: concurrent calls.
        tell: called with what it will cost, before the first call.
        show_progress: show a bar.
    """

    llm: LLM
    max_calls: int
    file: Path | None
    num_workers: int
    tell: Callable[[str], None]
    show_progress: bool = False

    def write(self, seen: SeenApp, seed: int) -> RetrievalDataset:
        """One question for each of some nodes, as many as the calls allow."""
        nodes = [node for node in seen.nodes.values() if node.get_content().strip()]
        count = min(len(nodes), self.max_calls // CALLS_A_QUESTION)
        drawn = np.random.default_rng([seed, 17]).permutation(len(nodes))[:count]
        chosen = [nodes[row] for row in sorted(drawn.tolist())]
        words = sum(len(node.get_content().split()) for node in chosen)
        self.tell(
            f"{self.llm.metadata.model_name} writes {count} questions and checks each: at most "
            f"{CALLS_A_QUESTION * count} calls, about {CALLS_A_QUESTION * words:,} words to read"
        )
        found = generate_qa_embedding_pairs(
            chosen,
            self.llm,
            num_questions_per_chunk=1,
            output_path=self.file,
            verify=True,
            question_styles=STYLES,
            num_workers=self.num_workers,
            max_calls=self.max_calls,
            show_progress=self.show_progress,
            verbose=False,
        )
        if found.failures:
            logger.warning("%d calls failed: %s", len(found.failures), found.failures[0].message)
        if not found.queries:
            raise DatasetError(
                f"{self.llm.metadata.model_name} wrote no question that its passage answers: "
                f"{found.counts}"
            )
        return RetrievalDataset(found.queries, seen.texts, found.relevant_docs)


def gather(
    seen: SeenApp, questions: Any, traffic: Any, seed: int, writing: Writing | None = None
) -> Questions:
    """Everything that was given, over the app's nodes; sentences where nothing was.

    Raises:
        DatasetError: the questions are not about these nodes, or too alike to tell anything.
    """
    notes: list[str] = []
    kind: Kind = "questions"
    parts = []
    if questions is not None:
        parts.append(of_app(read_questions(questions, seen, notes), seen, "questions", notes))
    if traffic is not None:
        asked = read_traffic(traffic)
        parts.append(of_app(asked, seen, "traffic", notes))
        notes.append(f"{len(asked)} questions are of the traffic")
    if writing is not None:
        kind = "generated questions"
        parts.append(writing.write(seen, seed))
        notes.append(
            f"{len(parts[-1])} questions were written by {writing.llm.metadata.model_name}"
        )
    if not parts:
        kind = "stand-ins"
        parts.append(stand_ins(seen, seed))
    dataset = _together(parts, notes)
    if kind != "stand-ins":
        check_telling(dataset)
        refuse_learnt(seen.embed_model, dataset.queries.values())
    fold = split(dataset, seed)
    return Questions(dataset, kind, fold, seen_documents(dataset, fold), notes)


def read_questions(given: Any, seen: SeenApp, notes: list[str]) -> RetrievalDataset:
    """A dataset, or a file or rows of questions with what answers them.

    Args:
        given: as in `tune_app`.
        seen: the app.
        notes: to which is added what was left out.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RowsLeftOutWarning)
        dataset = _read(given, seen)
    for each in told:
        if issubclass(each.category, RowsLeftOutWarning):
            notes.append(str(each.message))
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return dataset


def _read(given: Any, seen: SeenApp) -> RetrievalDataset:
    if isinstance(given, (str, PathLike)):
        path = Path(fspath(given))
        if path.is_dir():
            return RetrievalDataset.from_beir(path)
        if path.suffix == ".json" and isinstance(data := read_json(path), Mapping):
            return RetrievalDataset.from_dict({"corpus": seen.texts, **data}, source=str(path))
        return RetrievalDataset.from_table(path, nodes=list(seen.nodes.values()))
    if isinstance(given, (list, tuple)) or hasattr(given, "columns"):
        if isinstance(given, (list, tuple)) and not given:
            raise DatasetError("questions is empty; leave it out for documents alone")
        return RetrievalDataset.from_table(given, nodes=list(seen.nodes.values()))
    try:
        return RetrievalDataset.coerce(given)
    except TypeError:
        raise TypeError(
            "questions must be a RetrievalDataset, a file or rows of questions and answers, "
            f"got {type(given).__name__}"
        ) from None


def check_readable(path: Path) -> None:
    """What can be wrong with a file of questions, as far as it shows before there are nodes."""
    if path.is_dir() or (path.suffix == ".json" and isinstance(read_json(path), Mapping)):
        return
    check_columns(under_names(read_table(path), "question"), "question")


def of_app(
    dataset: RetrievalDataset, seen: SeenApp, name: str, notes: list[str]
) -> RetrievalDataset:
    """The same questions with the ids of the app's nodes, found by their texts if need be.

    Raises:
        DatasetError: the app has not even half of the documents that answer them.
    """
    found, told = over_nodes(
        dataset, seen.nodes, lambda ids: [seen.nodes[id_] for id_ in ids], name
    )
    notes += told
    with warnings.catch_warnings():  # of texts that come twice: they are merged below
        warnings.simplefilter("ignore", UserWarning)
        return RetrievalDataset(found.queries, seen.texts, found.relevant_docs)


def stand_ins(seen: SeenApp, seed: int) -> RetrievalDataset:
    """Sentences of the documents, each of which asks for the node that it is taken from."""
    found = generate_sentence_queries(bodies_of(seen), per_document=1, seed=seed)
    ids = list(found.queries)
    if len(ids) > STAND_INS:
        drawn = np.random.default_rng(seed).permutation(len(ids))[:STAND_INS]
        ids = [ids[place] for place in sorted(drawn.tolist())]
    queries = {id_: found.queries[id_] for id_ in ids}
    return RetrievalDataset(queries, seen.texts, {id_: found.relevant_docs[id_] for id_ in ids})


def bodies_of(seen: SeenApp) -> dict[str, str]:
    texts = {id_: node.get_content() for id_, node in seen.nodes.items()}
    return {id_: text for id_, text in texts.items() if text.strip()}


def read_log(traffic: Any) -> Traffic:
    """A recorder's log, or `Traffic` as it is."""
    if isinstance(traffic, (str, PathLike)):
        return Traffic.load(fspath(traffic))
    if not isinstance(traffic, Traffic):
        raise TypeError(f"traffic must be a recorded log or Traffic, got {type(traffic).__name__}")
    return traffic


def read_traffic(traffic: Any) -> RetrievalDataset:
    """What users asked and liked, of a recorder's log or of `Traffic`."""
    return read_log(traffic).retrieval_dataset()


def _together(parts: list[RetrievalDataset], notes: list[str]) -> RetrievalDataset:
    queries: dict[str, str] = {}
    relevant: dict[str, list[str]] = {}
    for number, part in enumerate(parts):
        for id_, text in part.queries.items():
            name = id_ if id_ not in queries else f"{number}:{id_}"
            queries[name], relevant[name] = text, part.relevant_docs[id_]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        whole = RetrievalDataset(queries, parts[0].corpus, relevant)
    merged = whole.merge_duplicates()
    if len(merged) < len(whole):
        notes.append(
            f"{len(whole) - len(merged)} questions were there already, word for word; all their "
            "answers count"
        )
    copies = copies_in(merged.corpus)
    notes += copies_notes(copies)
    if not copies:
        return merged
    relevant = {id_: with_copies(docs, copies) for id_, docs in merged.relevant_docs.items()}
    return RetrievalDataset(merged.queries, merged.corpus, relevant)


def check_telling(dataset: RetrievalDataset) -> None:
    """Questions must be able to tell one app from another.

    Raises:
        DatasetError: there is one, or all have the same answer.
    """
    if len(dataset) < 2:
        raise DatasetError(
            f"{len(dataset)} question tells nothing; give at least 10, or none (documents alone)"
        )
    answers = {frozenset(ids) for ids in dataset.relevant_docs.values()}
    if len(answers) == 1:
        raise DatasetError(
            f"all {len(dataset)} questions have the same answer ({sorted(*answers)[0]}); an app "
            "would learn to return it always"
        )


def split(dataset: RetrievalDataset, seed: int) -> Ints:
    """A fold of each question: of a share of the documents all questions stay together."""
    row = {id_: place for place, id_ in enumerate(dataset.queries)}
    draw = np.random.default_rng([seed, 11])
    groups: list[list[int]] = []
    for group in dataset.groups(by="document"):
        rows = [row[id_] for id_ in group]
        if draw.random() < TOGETHER and len(rows) * FOLDS <= max(len(dataset), FOLDS):
            groups.append(rows)
        else:
            groups += [[one] for one in rows]
    return fold_numbers(groups, FOLDS, seed)


def seen_documents(dataset: RetrievalDataset, fold: Ints) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether a document of each question has questions in other folds."""
    folds_of: dict[str, set[int]] = {}
    for number, ids in zip(fold.tolist(), dataset.relevant_docs.values(), strict=True):
        for id_ in ids:
            folds_of.setdefault(id_, set()).add(number)
    return np.array(
        [
            any(folds_of[id_] - {number} for id_ in ids)
            for number, ids in zip(fold.tolist(), dataset.relevant_docs.values(), strict=True)
        ],
        dtype=bool,
    )
