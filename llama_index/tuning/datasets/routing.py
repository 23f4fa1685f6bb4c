"""Choices, and which of them each query belongs to."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import folder_path, items_of, plain_arguments, share, warn
from llama_index.tuning._files import (
    PathLike,
    place_of_file,
    read_json,
    read_json_lines,
    write_text_atomic,
)
from llama_index.tuning.datasets.checks import (
    choice_faults,
    listed_records,
    route_faults,
)
from llama_index.tuning.datasets.formats import routing as sources
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.tuning.datasets.formats.tables import Table
    from llama_index.tuning.datasets.retrieval import RetrievalDataset


Labels = str | Sequence[str] | None


@dataclass(repr=False)
class RoutingDataset:
    """The choices of a router, and queries with the choices that they belong to.

    Args:
        choices: name → description; an empty description where there is none.
        examples: queries with their choices.

    Raises:
        DatasetError: naming every fault. The same query with different choices only warns.

    Example:
        >>> dataset = RoutingDataset.from_pairs(
        ...     [("Where is my parcel?", "orders"), ("I want my money back", "refunds")],
        ...     choices={"orders": "Tracking and delivery", "refunds": "Returns and refunds"},
        ... )
        >>> dataset.class_counts()
        {'orders': 1, 'refunds': 1}
    """

    choices: dict[str, str]
    examples: list[RoutingExample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.examples = listed_records("examples", self.examples, RoutingExample)
        faults = choice_faults(self.choices)
        if not faults:
            if not self.choices:
                faults.append("there is no choice")
            faults += route_faults(self.examples, self.choices)
        if faults:
            raise DatasetError("the routing dataset has faults:", faults)
        conflicts = self.conflicts()
        if conflicts:
            shown = "; ".join(repr(self.examples[rows[0]].query[:60]) for rows in conflicts[:3])
            warn(
                f"{len(conflicts)} queries occur more than once with different choices "
                f"({shown}{'; …' if len(conflicts) > 3 else ''})"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} examples)"

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.dataset import dataset_html

        rows = ((item.query, ", ".join(item.choices) or "none") for item in self.examples)
        return dataset_html(self, ("query", "choices"), rows)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.examples)

    @property
    def queries(self) -> list[str]:
        """The queries, in order."""
        return [example.query for example in self.examples]

    def class_counts(self) -> dict[str, int]:
        """Choice → number of examples, in the order of the choices."""
        counts = Counter(name for example in self.examples for name in example.choices)
        return {name: counts[name] for name in self.choices}

    def conflicts(self) -> list[list[int]]:
        """Groups of positions whose queries are the same but whose choices are not."""
        return conflicting_examples(self.examples)

    def subset(self, rows: Iterable[int]) -> RoutingDataset:
        """The same choices with these examples only, by position."""
        return _unchecked(
            self.choices, [self.examples[row] for row in items_of("rows", rows, "positions")]
        )

    def groups(self) -> list[list[int]]:
        """Positions that must stay on one side of a split: the same query text."""
        found: dict[str, list[int]] = {}
        for row, example in enumerate(self.examples):
            found.setdefault(normalise(example.query), []).append(row)
        return list(found.values())

    @plain_arguments
    def split(
        self, test_size: float = 0.2, *, seed: int = 0
    ) -> tuple[RoutingDataset, RoutingDataset]:
        """Two datasets with the same choices, stratified, with no query on both sides.

        Args:
            test_size: share of each choice's queries that go to the second, between 0 and 1.
            seed: the same seed gives the same split.
        """
        share("test_size", test_size)
        strata: dict[tuple[str, ...], list[list[int]]] = {}
        for group in self.groups():
            strata.setdefault(tuple(sorted(self.examples[group[0]].choices)), []).append(group)
        draw = random.Random(int(seed))
        test: set[int] = set()
        for groups in strata.values():
            draw.shuffle(groups)
            for group in groups[: round(test_size * len(groups))]:
                test.update(group)
        if not test or len(test) == len(self):
            raise DatasetError(
                f"cannot split {len(self)} examples with test_size {test_size}: one side is empty"
            )
        train = [row for row in range(len(self)) if row not in test]
        return self.subset(train), self.subset(sorted(test))

    def extend(self, other: RoutingDataset | Iterable[RoutingExample]) -> RoutingDataset:
        """A new dataset with more examples, and the other one's new choices."""
        if isinstance(other, RoutingDataset):
            return RoutingDataset(
                {**self.choices, **other.choices}, [*self.examples, *other.examples]
            )
        more = items_of("other", other, "examples")
        return RoutingDataset(dict(self.choices), [*self.examples, *more])

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"choices": self.choices, "examples": [_row(e) for e in self.examples]}

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "the data") -> RoutingDataset:
        """From the object that `to_dict` gives; `source` is what error messages call it."""
        if not isinstance(data, Mapping) or set(data) != {"choices", "examples"}:
            raise DatasetError(f"{source} must be an object with choices and examples, no more")
        if not isinstance(data["examples"], list):
            raise DatasetError(f"{source}: examples must be a list")
        rows = enumerate(data["examples"])
        return cls(data["choices"], [sources.example(row, f"example {n}") for n, row in rows])

    def save_json(self, path: PathLike) -> None:
        """Write choices and examples to one JSON file, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1))

    @classmethod
    @plain_arguments
    def from_json(cls, path: PathLike) -> RoutingDataset:
        """Load what `save_json` wrote."""
        return cls.from_dict(read_json(path), source=str(path))

    def save_jsonl(self, path: PathLike, labels: PathLike) -> None:
        """Write the examples as JSON Lines and the choices as JSON, each atomically."""
        place_of_file(path), place_of_file(labels, "labels")  # or neither is written
        write_text_atomic(labels, json.dumps(self.choices, ensure_ascii=False, indent=1))
        rows = (json.dumps(_row(example), ensure_ascii=False) for example in self.examples)
        write_text_atomic(path, "".join(row + "\n" for row in rows))

    @classmethod
    @plain_arguments
    def from_jsonl(
        cls, path: PathLike, labels: PathLike | Mapping[str, str] | None = None
    ) -> RoutingDataset:
        """Load JSON Lines of `{"query", "label"}` or `{"query", "labels": […]}`.

        Args:
            path: the examples; `"label": null` or an empty list is out of scope, and a row may
                have a `"weight"`.
            labels: `{name: description}` or its JSON file; by default `labels.json` beside the
                examples where it is, else the labels that occur, without descriptions.
        """
        rows = read_json_lines(path)
        examples = [sources.example(row, f"{path}, line {number}") for number, row in rows]
        if not examples:
            raise DatasetError(f"{path} is empty")
        if labels is None:
            beside = Path(path).with_name("labels.json")
            labels = beside if beside.is_file() else sources.names_of(examples)
        choices = dict(labels) if isinstance(labels, Mapping) else read_json(labels)
        return cls(choices, examples)

    @classmethod
    @plain_arguments
    def load(
        cls, path: PathLike, *, labels: PathLike | Mapping[str, str] | None = None
    ) -> RoutingDataset:
        """Load a `.jsonl` file with its labels, or the JSON file that `save_json` wrote."""
        if folder_path("path", path).suffix == ".jsonl":
            return cls.from_jsonl(path, labels)
        if labels is not None:
            raise ValueError(f"labels goes with a .jsonl file, {path} holds its own choices")
        return cls.from_json(path)

    @classmethod
    @plain_arguments
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, Labels]],
        *,
        choices: Mapping[str, str] | Sequence[str] | None = None,
    ) -> RoutingDataset:
        """From (query, name) pairs; a list of names for several choices, `None` for none.

        Args:
            pairs: the examples.
            choices: name → description, or names alone; by default the names that occur.
        """
        examples = [
            RoutingExample(query, sources.names(labels))
            for query, labels in items_of("pairs", pairs, "(query, choice) pairs")
        ]
        if isinstance(choices, Mapping):
            return cls(dict(choices), examples)
        if choices is not None:
            names = items_of("choices", choices, "names, or a dictionary")
            return cls(sources.from_names(list(names)), examples)
        return cls(sources.names_of(examples), examples)

    @classmethod
    @plain_arguments
    def from_table(
        cls,
        table: Table,
        *,
        question: str = "question",
        choice: str = "choice",
        out_of_scope: str = "none",
        choices: Mapping[str, str] | Sequence[str] | None = None,
    ) -> RoutingDataset:
        """From a table of questions: CSV, TSV, JSON Lines, JSON, Excel, Parquet, a DataFrame, rows.

        Rows without a question or a choice are left out, with a warning that counts them.

        Args:
            table: the file, or its rows.
            question: column of the questions.
            choice: column of the choices' names; a list where several are wanted.
            out_of_scope: what the column says where a question belongs to none.
            choices: as of `from_pairs`.
        """
        from llama_index.tuning.datasets.formats.shapes import routes_of_table

        pairs = routes_of_table(table, question, choice, out_of_scope)
        return cls.from_pairs(pairs, choices=choices)

    @classmethod
    @plain_arguments
    def from_metadata(
        cls, metadata: Iterable[Any], pairs: Iterable[tuple[str, Labels]] = ()
    ) -> RoutingDataset:
        """The choices of `ToolMetadata`, tools or nodes with metadata, with given examples."""
        return cls.from_pairs(pairs, choices=sources.choices_of(metadata))

    @classmethod
    @plain_arguments
    def from_router(cls, router: Any, pairs: Iterable[tuple[str, Labels]] = ()) -> RoutingDataset:
        """The choices of a `RouterQueryEngine` or `RouterRetriever`, with given examples.

        `generate.routing.generate_routing_examples` makes examples where there are none.
        """
        return cls.from_metadata(sources.metadata_of(router), pairs)

    @classmethod
    @plain_arguments
    def from_selections(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        correction_weight: float = 3.0,
        unrated_weight: float = 1.0,
    ) -> RoutingDataset:
        """From recorded selections of a running app, with the users' feedback.

        Args:
            records: objects with `query`; `choices`, a list of names, of `{"name",
                "description"}`, or a dictionary name → description; `selected`, positions or
                names; and, optionally, `feedback`: `True` or `False`, `"up"` or `"down"`, or
                `{"correct": name, names or null}`. A correction replaces what was selected; a
                selection rated wrong without one is left out.
            correction_weight: weight of a confirmed or corrected route.
            unrated_weight: weight of a route without feedback; 0 leaves those out.
        """
        choices, examples = sources.from_selections(records, correction_weight, unrated_weight)
        return cls(choices, examples)

    def to_retrieval(self) -> RetrievalDataset:
        """The same data for the embedding engines: each description is a document.

        So the embedding model may be tuned, and `EmbeddingSingleSelector` used with it. Choices
        without a description are called by their name; out-of-scope examples are left out.
        """
        from llama_index.tuning.datasets.retrieval import RetrievalDataset

        kept = {f"q{n}": e for n, e in enumerate(self.examples) if e.choices}
        return RetrievalDataset(
            {id_: example.query for id_, example in kept.items()},
            {name: text.strip() or name for name, text in self.choices.items()},
            {id_: list(example.choices) for id_, example in kept.items()},
        )

    @classmethod
    @plain_arguments
    def coerce(cls, data: Any, name: str = "dataset") -> RoutingDataset:
        """This class, or an error that says what was given."""
        if not isinstance(data, cls):
            raise TypeError(f"{name} must be a RoutingDataset, got {type(data).__name__}")
        return data

    def _lines(self) -> Iterable[str]:
        yield json.dumps(self.choices, ensure_ascii=False, sort_keys=True)
        for example in self.examples:
            yield json.dumps([example.query, list(example.choices), example.weight])


def _row(example: RoutingExample) -> dict[str, Any]:
    single = len(example.choices) == 1
    labels = {"label": example.choices[0]} if single else {"labels": list(example.choices)}
    weight = {} if example.weight == 1 else {"weight": example.weight}
    return {"query": example.query, **labels, **weight}


def _unchecked(choices: dict[str, str], examples: list[RoutingExample]) -> RoutingDataset:
    # Part of a dataset that was validated, and warned about, already.
    dataset = object.__new__(RoutingDataset)
    dataset.choices, dataset.examples = choices, examples
    return dataset


def conflicting_examples(examples: Sequence[RoutingExample]) -> list[list[int]]:
    """Groups of positions that share a query (case and space aside) but not the choices."""
    same: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        same[normalise(example.query)].append(number)
    return [
        rows
        for rows in same.values()
        if len(rows) > 1 and len({frozenset(examples[row].choices) for row in rows}) > 1
    ]
