"""How far verdicts on the same items agree: of two sources, of two orders of a pair."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from llama_index.tuning.datasets.judgments import Judgment, JudgmentDataset
from llama_index.tuning.errors import DatasetError

Item = tuple[Hashable, ...]
Verdict = str | float


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


def item_of(judgment: Judgment) -> Item:
    """What is judged; a pair is the same in either order."""
    answers: Sequence[str] = (judgment.response or "",)
    if judgment.second_response is not None:
        answers = sorted((judgment.response or "", judgment.second_response))
    return (judgment.query, tuple(judgment.contexts or ()), *answers)


def verdict_of(judgment: Judgment) -> Verdict:
    """A pair's better answer by its place in `item_of`, else yes or no, else the score.

    No verdict at all is equal to nobody's.
    """
    if judgment.invalid:
        return f"no verdict of {judgment.source}"
    if judgment.second_response is not None:
        first = _share_of_first(judgment)
        if first == 0.5:
            return "tie"
        better_first = (first > 0.5) != _turned(judgment)
        return "first" if better_first else "second"
    if judgment.passing is not None:
        return "pass" if judgment.passing else "fail"
    assert judgment.score is not None
    return float(judgment.score)


def _both_orders(dataset: JudgmentDataset) -> list[tuple[list[Verdict], list[Verdict]]]:
    """Of each pair that one source judged in both orders: verdicts in the one, in the other."""
    orders: dict[Item, tuple[list[Verdict], list[Verdict]]] = defaultdict(lambda: ([], []))
    for judgment in dataset.judgments:
        if judgment.invalid or judgment.second_response is None:
            continue
        if judgment.response != judgment.second_response:
            item = (judgment.source, *item_of(judgment))
            side = orders[item][_turned(judgment)]
            side.append(verdict_of(judgment))
    return [sides for sides in orders.values() if all(sides)]


def _share_of_first(judgment: Judgment) -> float:
    if judgment.score is not None:
        return judgment.score
    return float(bool(judgment.passing))


def _turned(judgment: Judgment) -> bool:
    return (judgment.response or "") > (judgment.second_response or "")


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
