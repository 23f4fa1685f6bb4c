"""Answers, and what judges and people thought of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.datasets.checks import HALF, is_number, is_utf8
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.datasets.judgment_rows import Agreement, LoadedJudgments
    from llama_index.tuning.datasets.tables import Table


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """One verdict on one answer.

    Attributes:
        query: the question.
        response: the answer that was judged; of a pair, the first.
        contexts: the passages that the answer was made from.
        reference: the right answer, where one was given.
        second_response: of a pair, the second answer.
        score: the verdict as a number, on the judge's own scale.
        passing: the verdict as yes or no.
        feedback: the judge's reasons.
        source: `"human"`, or the model that judged.
        judge: the evaluator's class.
        weight: how much the verdict counts, above 0.
        invalid: whether the judge was asked and gave no verdict: its reply can't be read, or
            turned with the order of a pair. Nothing is learnt from it; where the judge is
            compared with people, it counts as wrong.
    """

    query: str | None = None
    response: str | None = None
    contexts: Sequence[str] | None = None
    reference: str | None = None
    second_response: str | None = None
    score: float | None = None
    passing: bool | None = None
    feedback: str | None = None
    source: str = ""
    judge: str | None = None
    weight: float = 1.0
    invalid: bool = False


@dataclass(repr=False)
class JudgmentDataset:
    """Verdicts to tune a judge on; several on one answer stay apart.

    Args:
        judgments: the verdicts.

    Raises:
        DatasetError: naming every fault by its row.

    Example:
        >>> dataset = JudgmentDataset([
        ...     Judgment(query="Fee?", response="5 euros.", contexts=["Fee: 5 €"], passing=True),
        ... ])
        >>> len(dataset)
        1
    """

    judgments: list[Judgment]

    def __post_init__(self) -> None:
        faults = [
            f"judgment {number}: {fault}"
            for number, judgment in enumerate(self.judgments)
            for fault in judgment_faults(judgment)
        ]
        if faults:
            raise DatasetError("the judgment dataset has faults:", faults)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} judgments)"

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.dataset import dataset_html

        rows = (
            (item.query, item.response, item.second_response, item.passing, item.score, item.source)
            for item in self.judgments
        )
        return dataset_html(
            self, ("query", "response", "second response", "passing", "score", "source"), rows
        )

    def __len__(self) -> int:
        """The number of verdicts."""
        return len(self.judgments)

    @classmethod
    def from_records(cls, rows: Iterable[Mapping[str, Any]]) -> JudgmentDataset:
        """From plain objects with a judgment's fields.

        Raises:
            DatasetError: a row has a field that no judgment has.
        """
        known = {field.name for field in fields(Judgment)}
        judgments = []
        for number, row in enumerate(rows):
            unknown = sorted(map(str, set(row) - known))
            if unknown:
                raise DatasetError(f"judgment {number} has unknown fields: {', '.join(unknown)}")
            judgments.append(Judgment(**row))
        return cls(judgments)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        columns: Mapping[str, str | None] | None = None,
        verdicts: Mapping[str, bool | float] | None = None,
        source: str = "",
        coerce: bool = True,
    ) -> LoadedJudgments:
        """From rows of other people's files; what was changed or left out is counted.

        Args:
            rows: plain objects.
            columns: a judgment's field → the row's; of all others the names are taken to be the
                same, and `None` leaves the row's field of that name alone. `verdict` is a label
                that `verdicts` reads.
            verdicts: label → passing (`True`, `False`) or score; upper and lower case are the
                same. By default yes, no, true, false, pass, fail, passing, failing, and of pairs
                A, B, tie.
            source: of rows that have none.
            coerce: turn booleans and numbers in place of texts into texts, and a text in place of
                a list of contexts into a list; `False` leaves such rows out.

        Returns:
            The dataset, and how many rows were changed or left out, by reason.

        Raises:
            DatasetError: a column that no row has, or no row is left.

        Example:
            >>> rows = [{"q": "Fee?", "a": "5 euros.", "label": "good"},
            ...         {"q": "Tax?", "a": True, "label": "bad"},
            ...         {"q": "Open?", "a": "At 8.", "label": None}]
            >>> loaded = JudgmentDataset.from_rows(
            ...     rows,
            ...     columns={"query": "q", "response": "a", "verdict": "label"},
            ...     verdicts={"good": True, "bad": False},
            ...     source="human",
            ... )
            >>> loaded.counts
            {'rows': 3, 'kept': 2, 'response: bool made a text': 1, 'left out: no verdict': 1}
        """
        from llama_index.tuning.datasets.judgment_rows import load_rows

        return load_rows(rows, columns or {}, verdicts, source, coerce)

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        question: str = "question",
        answer: str = "answer",
        verdict: str = "verdict",
        columns: Mapping[str, str | None] | None = None,
        verdicts: Mapping[str, bool | float] | None = None,
        source: str = "human",
    ) -> JudgmentDataset:
        """From a table of answers: CSV, TSV, JSON Lines, JSON, Excel, Parquet, a DataFrame, rows.

        Rows that cannot be used are left out, with a warning that counts them.

        Args:
            table: the file, or its rows.
            question: column of the questions.
            answer: column of the answers that were judged.
            verdict: column of the verdicts.
            columns: more of them, as of `from_rows`, such as `{"contexts": "passages"}`.
            verdicts: as of `from_rows`.
            source: who judged.
        """
        from llama_index.tuning.datasets.table_shapes import judgments_of_table

        named = {"query": question, "response": answer, "verdict": verdict, **(columns or {})}
        return judgments_of_table(table, named, verdicts, source)

    @classmethod
    def from_labelled_rag(cls, dataset: Any, *, source: str | None = None) -> JudgmentDataset:
        """The reference answers of a `LabelledRagDataset` as answers that pass.

        Only passing verdicts are in it: beside others, as what people wrote. Its answers by a
        pipeline (`predictions=`) have no verdict yet: `label_judgments` gives them one.

        Args:
            dataset: with `examples`, each with `query`, `reference_answer` and
                `reference_contexts`.
            source: who says that they pass; whom the dataset names as their author by default.
        """
        from llama_index.tuning.datasets.judgment_rows import reference_answers

        return cls(reference_answers(dataset, source))

    def sources(self) -> list[str]:
        """Who judged, in order of appearance."""
        return list(dict.fromkeys(judgment.source for judgment in self.judgments))

    def by_source(self, name: str) -> JudgmentDataset:
        """One source's verdicts.

        Raises:
            DatasetError: it gave none; the message names those who did.
        """
        found = [judgment for judgment in self.judgments if judgment.source == name]
        if not found:
            raise DatasetError(
                f"no verdict is by {name!r}; sources: {', '.join(map(repr, self.sources()))}"
            )
        return JudgmentDataset(found)

    def split(
        self, test_size: float = 0.25, seed: int = 0
    ) -> tuple[JudgmentDataset, JudgmentDataset]:
        """Two parts; all verdicts on answers to one query are on one side.

        Args:
            test_size: the second part's share of the queries, between 0 and 1.
            seed: of the draw.

        Raises:
            DatasetError: fewer than two queries.
        """
        from llama_index.tuning.datasets.judgment_rows import drawn_groups

        chosen = drawn_groups(self.judgments, test_size, seed)
        parts: tuple[list[Judgment], list[Judgment]] = ([], [])
        for judgment, second in zip(self.judgments, chosen, strict=True):
            parts[second].append(judgment)
        return JudgmentDataset(parts[0]), JudgmentDataset(parts[1])

    def agreement(self, first: str, second: str) -> Agreement:
        """How far two sources agree on the items that both judged; see `Agreement`.

        A source's verdicts on one item – several people under one name, both orders of a pair –
        are put to the vote; items without a majority are left out, and counted. A pair counts as
        the same item in either order.

        Raises:
            DatasetError: no item has a verdict of both.

        Example:
            >>> item = {"query": "Fee?", "response": "5 euros."}
            >>> dataset = JudgmentDataset.from_records([
            ...     {**item, "passing": True, "source": "human"},
            ...     {**item, "passing": False, "source": "gpt"},
            ... ])
            >>> dataset.agreement("human", "gpt").equal
            0.0
        """
        from llama_index.tuning.datasets.judgment_rows import agreement_of_sources

        return agreement_of_sources(self, first, second)

    def agreement_of_orders(self, source: str | None = None) -> Agreement:
        """How far verdicts on pairs stand when the answers change places: `flip_rate`.

        Args:
            source: whose verdicts; all sources', each against its own, by default.

        Raises:
            DatasetError: no pair was judged in both orders by one source.
        """
        from llama_index.tuning.datasets.judgment_rows import agreement_of_orders

        return agreement_of_orders(self if source is None else self.by_source(source))

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        return hashlib.sha256("\n".join(self._lines()).encode()).hexdigest()[:16]

    def save_jsonl(self, path: PathLike) -> None:
        """Write one verdict a line, atomically."""
        write_text_atomic(path, "".join(f"{line}\n" for line in self._lines()))

    @classmethod
    def from_jsonl(cls, path: PathLike) -> JudgmentDataset:
        """Load what `save_jsonl` wrote."""
        return cls.from_records(row for _, row in read_json_lines(path))

    def _lines(self) -> list[str]:
        rows = (asdict(judgment) for judgment in self.judgments)
        return [
            json.dumps({k: v for k, v in row.items() if _is_said(k, v)}, ensure_ascii=False)
            for row in rows
        ]


def samples_of(given: Any, predictions: Any = None) -> list[Judgment]:
    """Answers to judge, without verdicts.

    Args:
        given: judgments, plain objects with their fields, a `JudgmentDataset`, or a
            `LabelledRagDataset`.
        predictions: of a `LabelledRagDataset`, a `RagPredictionDataset`: the answers to judge, in
            the examples' order. Without, its reference answers are.

    Raises:
        DatasetError: naming every fault by its number.
    """
    from llama_index.tuning.datasets.judgment_rows import rag_samples, without_verdict

    if hasattr(given, "examples"):
        return rag_samples(given, predictions)
    if predictions is not None:
        raise ValueError("predictions belong to a LabelledRagDataset; samples is none")
    given = getattr(given, "judgments", given)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(
            "samples must be judgments, plain objects or a LabelledRagDataset, got "
            f"{type(given).__name__}"
        )
    samples = [without_verdict(number, row) for number, row in enumerate(given)]
    faults = [
        f"sample {number}: {fault}"
        for number, sample in enumerate(samples)
        for fault in text_faults(sample)
    ]
    if faults:
        raise DatasetError("the samples have faults:", faults)
    return samples


def _is_said(name: str, value: Any) -> bool:
    return value is not None and (name != "invalid" or value)


def judgment_faults(judgment: Judgment) -> Iterable[str]:
    """What is wrong with one judgment."""
    yield from text_faults(judgment)
    if judgment.invalid not in (True, False):
        yield f"invalid must be true or false, got {judgment.invalid!r}"
    silent = judgment.score is None and judgment.passing is None
    if judgment.invalid and not silent:
        yield "it is invalid, so it must have neither score nor passing"
    if silent and not judgment.invalid:
        yield "it has neither score nor passing: there is no verdict"
    if judgment.score is not None and not is_number(judgment.score):
        yield f"score must be a number, got {judgment.score!r}"
    if judgment.passing not in (None, True, False):
        yield f"passing must be true or false, got {judgment.passing!r}"
    if not is_number(judgment.weight) or judgment.weight <= 0:
        rule = "finite" if judgment.weight in (math.inf, -math.inf) else "above 0"
        yield f"weight must be {rule}, got {judgment.weight!r}"


def text_faults(judgment: Judgment) -> Iterable[str]:
    """What is wrong with the texts of one judgment, its verdict aside."""
    if not isinstance(judgment.response, str):
        yield f"response must be a text, got {judgment.response!r}"
    elif not is_utf8(judgment.response):
        yield f"response: {HALF}"
    for name in ("query", "reference", "second_response", "feedback"):
        value = getattr(judgment, name)
        if value is not None and not isinstance(value, str):
            yield f"{name} must be a text, got {type(value).__name__}"
        elif not is_utf8(value):
            yield f"{name}: {HALF}"
    contexts = judgment.contexts
    if contexts is not None and (
        not isinstance(contexts, (list, tuple))
        or not all(isinstance(text, str) for text in contexts)
    ):
        yield "contexts must be a list of texts"
    elif contexts is not None and not all(map(is_utf8, contexts)):
        yield f"contexts: {HALF}"
