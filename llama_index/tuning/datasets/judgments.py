"""Answers, and what judges and people thought of them."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import of_type, plain_arguments, share
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.datasets.checks import judgment_faults, listed_records, objects_of
from llama_index.tuning.datasets.formats.judgments import load_rows, reference_answers
from llama_index.tuning.datasets.formats.tables import (
    check_columns,
    read_table,
    under_names,
    warn_of_left_out,
)
from llama_index.tuning.datasets.records import (
    Item,
    Judgment,
    Verdict,
    is_turned,
    item_of,
    query_key,
    verdict_of,
)
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.datasets.formats.tables import Table


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
        self.judgments = listed_records("judgments", self.judgments, Judgment)
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
    @plain_arguments
    def from_records(cls, rows: Iterable[Mapping[str, Any]]) -> JudgmentDataset:
        """From plain objects with a judgment's fields.

        Raises:
            DatasetError: a row has a field that no judgment has.
        """
        known = {field.name for field in fields(Judgment)}
        judgments = []
        for number, row in enumerate(objects_of("rows", rows)):
            unknown = sorted(map(str, set(row) - known))
            if unknown:
                raise DatasetError(f"judgment {number} has unknown fields: {', '.join(unknown)}")
            judgments.append(Judgment(**row))
        return cls(judgments)

    @classmethod
    @plain_arguments
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
        judgments, counts = load_rows(rows, columns or {}, verdicts, source, coerce)
        return LoadedJudgments(cls(judgments), counts)

    @classmethod
    @plain_arguments
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
        if columns is not None and not isinstance(columns, Mapping):
            raise TypeError(f"columns must be a dictionary, got {type(columns).__name__}")
        for name, column in {"question": question, "answer": answer, "verdict": verdict}.items():
            of_type(name, column, str, "a text")
        of_type("source", source, str, "a text")
        named = {"query": question, "response": answer, "verdict": verdict, **(columns or {})}
        rows = under_names(read_table(table), *named.values())
        check_columns(rows, *named.values())
        loaded = cls.from_rows(rows, columns=named, verdicts=verdicts, source=source)
        marked = ((name.partition("left out: ")[2], n) for name, n in loaded.counts.items())
        left_out = Counter({reason: number for reason, number in marked if reason})
        warn_of_left_out("the judgment dataset", len(rows), left_out)
        return loaded.dataset

    @classmethod
    @plain_arguments
    def from_labelled_rag(cls, dataset: Any, *, source: str | None = None) -> JudgmentDataset:
        """The reference answers of a `LabelledRagDataset` as answers that pass.

        Only passing verdicts are in it: beside others, as what people wrote. Its answers by a
        pipeline (`predictions=`) have no verdict yet: `label_judgments` gives them one.

        Args:
            dataset: with `examples`, each with `query`, `reference_answer` and
                `reference_contexts`.
            source: who says that they pass; whom the dataset names as their author by default.
        """
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

    @plain_arguments
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
        share("test_size", test_size)
        names = sorted({query_key(judgment) for judgment in self.judgments})
        if len(names) < 2:
            raise DatasetError(f"a split needs at least 2 queries, the dataset has {len(names)}")
        random.Random(int(seed)).shuffle(names)
        chosen = set(names[: min(len(names) - 1, max(1, round(test_size * len(names))))])
        parts: tuple[list[Judgment], list[Judgment]] = ([], [])
        for judgment in self.judgments:
            parts[query_key(judgment) in chosen].append(judgment)
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
        return agreement_of_sources(self, first, second)

    def agreement_of_orders(self, source: str | None = None) -> Agreement:
        """How far verdicts on pairs stand when the answers change places: `flip_rate`.

        Args:
            source: whose verdicts; all sources', each against its own, by default.

        Raises:
            DatasetError: no pair was judged in both orders by one source.
        """
        return agreement_of_orders(self if source is None else self.by_source(source))

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        return hashlib.sha256("\n".join(self._lines()).encode()).hexdigest()[:16]

    def save_jsonl(self, path: PathLike) -> None:
        """Write one verdict a line, atomically."""
        write_text_atomic(path, "".join(f"{line}\n" for line in self._lines()))

    @classmethod
    @plain_arguments
    def from_jsonl(cls, path: PathLike) -> JudgmentDataset:
        """Load what `save_jsonl` wrote."""
        rows = [row for _, row in read_json_lines(path)]
        if not rows:
            raise DatasetError(f"{path} is empty")
        return cls.from_records(rows)

    def _lines(self) -> list[str]:
        rows = (asdict(judgment) for judgment in self.judgments)
        return [
            json.dumps({k: v for k, v in row.items() if _is_said(k, v)}, ensure_ascii=False)
            for row in rows
        ]


def _is_said(name: str, value: Any) -> bool:
    return value is not None and (name != "invalid" or value)


@dataclass(frozen=True)
class LoadedJudgments:
    """A dataset, and what became of the rows.

    Args:
        dataset: of the rows that were kept.
        counts: rows, kept, and how many were changed or left out for each reason.
    """

    dataset: JudgmentDataset
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two series of verdicts on the same items.

    Attributes:
        n: items with a verdict in both.
        equal: share of equal verdicts.
        kappa: Cohen's, scikit-learn's; `None` where both always say the same one thing.
        undecided: items left out, because one side's verdicts on them are tied.
    """

    n: int
    equal: float
    kappa: float | None
    undecided: int = 0

    @property
    def flip_rate(self) -> float:
        """Share of different verdicts: of two orders, how many turned with the order."""
        return 1.0 - self.equal

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.3f}"
        text = f"equal {self.equal:.3f}, kappa {kappa}, n={self.n}"
        return f"{text}, {self.undecided} undecided" if self.undecided else text


def agreement_of_sources(dataset: JudgmentDataset, first: str, second: str) -> Agreement:
    """See `JudgmentDataset.agreement`."""
    if first == second:
        raise ValueError(f"two sources are needed, got {first!r} twice")
    sides = [_votes(dataset.by_source(name).judgments) for name in (first, second)]
    both = [item for item in sides[0] if item in sides[1]]
    if not both:
        raise DatasetError(f"no item has verdicts of both {first!r} and {second!r}")
    pairs = [(_majority(sides[0][item]), _majority(sides[1][item])) for item in both]
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not decided:
        raise DatasetError("every item that both judged has tied verdicts on one side")
    return _agreement(decided, undecided=len(pairs) - len(decided))


def agreement_of_orders(dataset: JudgmentDataset) -> Agreement:
    """See `JudgmentDataset.agreement_of_orders`."""
    both = _both_orders(dataset)
    if not both:
        raise DatasetError("no pair was judged in both orders by one source")
    pairs = [(_majority(a), _majority(b)) for a, b in both]
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not decided:
        raise DatasetError("every pair's verdicts are tied within one order")
    return _agreement(decided, undecided=len(pairs) - len(decided))


def sources_in_common(dataset: JudgmentDataset) -> list[tuple[str, str]]:
    """Pairs of sources that judged at least one item both."""
    items = {name: set(_votes(dataset.by_source(name).judgments)) for name in dataset.sources()}
    return [(a, b) for a, b in combinations(items, 2) if items[a] & items[b]]


def sources_in_both_orders(dataset: JudgmentDataset) -> list[str]:
    """Sources that judged at least one pair in both orders."""
    return [name for name in dataset.sources() if _both_orders(dataset.by_source(name))]


def _both_orders(dataset: JudgmentDataset) -> list[tuple[list[Verdict], list[Verdict]]]:
    """Of each pair that one source judged in both orders: verdicts in the one, in the other."""
    orders: dict[Item, tuple[list[Verdict], list[Verdict]]] = defaultdict(lambda: ([], []))
    for judgment in dataset.judgments:
        if judgment.invalid or judgment.second_response is None:
            continue
        if judgment.response != judgment.second_response:
            item = (judgment.source, *item_of(judgment))
            side = orders[item][is_turned(judgment)]
            side.append(verdict_of(judgment))
    return [sides for sides in orders.values() if all(sides)]


def _votes(judgments: Sequence[Judgment]) -> Mapping[Item, list[Verdict]]:
    found: dict[Item, list[Verdict]] = defaultdict(list)
    for judgment in judgments:
        found[item_of(judgment)].append(verdict_of(judgment))
    return found


def _majority(verdicts: Sequence[Verdict]) -> Verdict | None:
    ranked = Counter(verdicts).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None
    return ranked[0][0]


def _agreement(pairs: Sequence[tuple[Verdict, Verdict]], *, undecided: int) -> Agreement:
    first, second = ([str(pair[side]) for pair in pairs] for side in (0, 1))
    return Agreement(
        n=len(pairs),
        equal=sum(a == b for a, b in zip(first, second, strict=True)) / len(pairs),
        kappa=_kappa(first, second),
        undecided=undecided,
    )


def _kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few distinct labels: fine for scores
        return float(cohen_kappa_score(first, second))
