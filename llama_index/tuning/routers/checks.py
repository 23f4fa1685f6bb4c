"""What can be wrong with a router's data, found before anything is embedded."""

from __future__ import annotations

from typing import Any

from llama_index.tuning.datasets._validation import normalise
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError

MIN_EXAMPLES = 4


def check_datasets(dataset: Any, val_dataset: Any, max_deferred: Any, num_workers: Any) -> None:
    """Everything that can be known without a vector."""
    data = RoutingDataset.coerce(dataset)
    faults = []
    if len(data.choices) < 2:
        faults.append(f"a router needs at least 2 choices, got {len(data.choices)}")
    counts = data.class_counts()
    for name, description in data.choices.items():
        if not counts[name] and not description.strip():
            faults.append(f"choice {name!r} has neither an example nor a description")
    inside = sum(bool(example.choices) for example in data.examples)
    if inside < MIN_EXAMPLES:
        faults.append(f"at least {MIN_EXAMPLES} examples of choices are needed, got {inside}")
    elif sum(count > 0 for count in counts.values()) < 2:
        faults.append("all examples belong to one choice; at least 2 need examples")
    if len(data.groups()) < MIN_EXAMPLES and inside >= MIN_EXAMPLES:
        faults.append(f"the examples hold only {len(data.groups())} different queries")
    if val_dataset is not None:
        faults += _validation_faults(data, RoutingDataset.coerce(val_dataset))
    if faults:
        raise DatasetError("the router cannot be trained:", faults)
    for name, value in (("max_deferred", max_deferred), ("num_workers", num_workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def _validation_faults(data: RoutingDataset, held_out: RoutingDataset) -> list[str]:
    if list(held_out.choices) != list(data.choices):
        return ["val_dataset must have the dataset's choices, in the same order"]
    seen = {normalise(query) for query in data.queries}
    shared = [query for query in held_out.queries if normalise(query) in seen]
    faults = [f"val_dataset shares the query {query[:60]!r} with the dataset" for query in shared]
    if not any(example.choices for example in held_out.examples):
        faults.append("val_dataset has no example of any choice")
    return faults
