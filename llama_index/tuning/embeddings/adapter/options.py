"""How an adapter is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import plain_fields

AdapterKind = Literal["linear", "low_rank", "two_layer"]
Side = Literal["query", "both"]
Start = Literal["whitened", "identity"]
Solver = Literal["convex", "gradient"]


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """How an adapter is trained; the defaults are the recipe that the README measures.

    Example:
        >>> AdapterOptions(adapter="low_rank", rank=32).side
        'query'
    """

    adapter: AdapterKind = "linear"
    """Form of the map; a module handed to the engine takes precedence."""
    solver: Solver = "convex"
    """How a linear map is found: solved to its optimum at several strengths of the prior, of which
    held-out queries choose, or by `"gradient"`, as every other form is, and as this one is where
    queries times documents exceed ten million."""
    rank: int = 64
    """Rank of `adapter="low_rank"`."""
    hidden: int = 256
    """Hidden units of `adapter="two_layer"`."""
    bias: bool = False
    """Whether `adapter="linear"` adds a constant vector."""
    side: Side = "query"
    """Whether queries alone are mapped, or documents by the same map too."""
    start: Start = "whitened"
    """Where training starts, and what a convex solution's prior is centred at: the closed-form map
    of `solved/start.py`, or the identity."""
    start_strength: float = 0.3
    """Largest weight, from 0 to below 0.5, of each measured covariance in the whitened start."""
    prior_pairs: float = 0.75
    """Pairs for each dimension at which a measured covariance gets half that weight."""
    memory: bool = True
    """Whether a solved query-side map may come with a memory of single questions (their vectors are
    then in the adapter's folder), if held-out queries choose it."""
    scale: float | None = None
    """Factor on the cosines in the softmax, the inverse of the temperature; by default 20, or more
    if the model's cosines lie close together."""
    max_epochs: int | None = None
    """Largest number of passes over the queries: for a convex solution, steps of the solver. By
    default that runs to the optimum, and gradient training as far as `max_steps`."""
    learning_rate: float = 1e-3
    """Of AdamW. This and the next four concern training by gradient."""
    weight_decay: float = 0.01
    """Of AdamW."""
    batch_size: int = 128
    """Queries in a step."""
    max_steps: int = 400
    """Largest number of steps, whatever the number of queries."""
    patience: int = 4
    """Looks at the inner split without a better score after which training stops."""
    folds: int = 5
    """Folds of the cross-fitting."""
    inner_share: float = 0.2
    """Share of the training queries, from 0 to 0.5, that decide when gradient training stops."""
    unlabelled_weight: float = 0.5
    """Weight, from 0 to 1, of the sentence pairs beside the labelled ones."""
    max_unlabelled: int = 5000
    """At most so many sentence pairs are used, drawn at random."""
    max_documents: int = 20_000
    """Above this, training sees the relevant, the mined and some random documents only."""
    documents_per_step: int = 4096
    """Documents in the softmax of a step, or of a convex solution; all, if there are no more."""
    mined_negatives: int = 20
    """Nearest documents of a query that are mined where not all documents are used."""
    seed: int = 0
    """The same seed on the same machine gives the same weights."""

    def __post_init__(self) -> None:
        plain_fields(self)
        _one_of("adapter", self.adapter, get_args(AdapterKind))
        _one_of("side", self.side, get_args(Side))
        _one_of("start", self.start, get_args(Start))
        _one_of("solver", self.solver, get_args(Solver))
        for name in ("rank", "hidden", "batch_size", "max_steps", "patience"):
            _whole(name, getattr(self, name), 1)
        if self.max_epochs is not None:
            _whole("max_epochs", self.max_epochs, 1)
        for name in ("max_unlabelled", "max_documents", "documents_per_step"):
            _whole(name, getattr(self, name), 1)
        _whole("folds", self.folds, 2)
        _whole("mined_negatives", self.mined_negatives, 0)
        _whole("seed", self.seed, 0)
        _between("learning_rate", self.learning_rate, 0, float("inf"), "above 0", open_low=True)
        if self.scale is not None:
            _between("scale", self.scale, 0, float("inf"), "above 0", open_low=True)
        for name in ("weight_decay", "prior_pairs"):
            _between(name, getattr(self, name), 0, float("inf"), "0 or more")
        _between("inner_share", self.inner_share, 0, 0.5, "above 0 and at most 0.5", open_low=True)
        _between("unlabelled_weight", self.unlabelled_weight, 0, 1, "from 0 to 1")
        _between("start_strength", self.start_strength, 0, 0.49, "from 0 to 0.49")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of: {', '.join(choices)}")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def _between(
    name: str, value: object, low: float, high: float, rule: str, *, open_low: bool = False
) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Infinity and NaN fail too: no comparison below holds for NaN.
    inside = number and low <= value <= high and value != float("inf")  # type: ignore[operator]
    if not inside or (open_low and value == low):
        raise ValueError(f"{name} must be a number {rule}, got {value!r}")
