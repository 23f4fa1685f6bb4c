"""Base against tuned LLM by scores of the caller's own, item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.report import Gains

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Evaluate = Callable[["LLM"], Sequence[float]]
"""An LLM → one score from 0 to 1 for each held-out item, always in the same order."""

Peer = Union["LLM", Sequence[float]]
"""What a tuned LLM is compared with: another LLM, or scores of the same items, known already."""

Scores = dict[str, NDArray[np.float64]]

SCORE = "score"


def check_callables(evaluate: Evaluate | None, protect: Mapping[str, Evaluate]) -> None:
    """Both are functions, and no name of `protect` is taken."""
    if not isinstance(protect, Mapping):
        raise TypeError(f"protect must map names to functions, got {type(protect).__name__}")
    _check_names("protect", protect)
    given = {} if evaluate is None else {"evaluate": evaluate}
    for name, call in {**given, **{f"protect[{name!r}]": c for name, c in protect.items()}}.items():
        if not callable(call):
            raise TypeError(f"{name} must be a function of an LLM, got {call!r}")
    if SCORE in protect:
        raise ValueError(f"protect: the name {SCORE!r} is taken by evaluate's own scores")


def caller_scores(llm: LLM, evaluate: Evaluate | None, protect: Mapping[str, Evaluate]) -> Scores:
    """What the caller's functions give one LLM: `evaluate`'s under `score`, others by name.

    Raises:
        ValueError: no score, or one outside 0 to 1.
        TypeError: something else than numbers.
    """
    found = {} if evaluate is None else {SCORE: _scores("evaluate", evaluate, llm)}
    return found | {
        name: _scores(f"protect[{name!r}]", call, llm) for name, call in protect.items()
    }


def check_same_items(base: Scores, tuned: Scores) -> None:
    """Raise if a function did not score as many items both times."""
    for name, before in base.items():
        if len(before) != len(tuned[name]):
            raise ValueError(
                f"{name}: the same items must be scored each time, got {len(before)} scores for "
                f"the base and {len(tuned[name])} for the tuned LLM"
            )


def check_peers(peers: Any, evaluate: Evaluate | None, protect: Mapping[str, Evaluate]) -> None:
    """Each is an LLM or a list of scores, and there is `evaluate` to score the tuned LLM by."""
    if not isinstance(peers, Mapping):
        raise TypeError(f"peers must map names to LLMs or scores, got {type(peers).__name__}")
    _check_names("peers", peers)
    if peers and evaluate is None:
        raise ValueError("peers needs evaluate: the tuned LLM is compared on its items")
    for name, peer in peers.items():
        if against(name) in protect:
            raise ValueError(f"protect: the name {against(name)!r} is taken by peers[{name!r}]")
        if isinstance(peer, str) or not (_is_llm(peer) or isinstance(peer, Sequence | np.ndarray)):
            raise TypeError(f"peers[{name!r}] must be an LLM or a list of scores, got {peer!r}")


def peer_scores(peers: Mapping[str, Peer], evaluate: Evaluate | None, base: Scores) -> Scores:
    """What each peer scores on `evaluate`'s items.

    Raises:
        ValueError: not one score from 0 to 1 for each item.
    """
    found: Scores = {}
    for name, peer in peers.items():
        assert evaluate is not None
        said = f"peers[{name!r}]"
        found[name] = _scores(said, evaluate, peer) if _is_llm(peer) else _numbers(said, peer)
        if len(found[name]) != len(base[SCORE]):
            raise ValueError(
                f"{said} must have one score for each of evaluate's {len(base[SCORE])} items, "
                f"got {len(found[name])}"
            )
    return found


def peer_gains(peers: Scores, tuned: Scores) -> dict[str, Gains]:
    """The tuned LLM against each peer, which stands where the base does elsewhere."""
    return {
        against(name): {SCORE: paired_gain(scores, tuned[SCORE])} for name, scores in peers.items()
    }


def against(name: str) -> str:
    """What a report calls the comparison with a peer."""
    return f"{name} as the base"


def _check_names(argument: str, given: Mapping[Any, Any]) -> None:
    for name in given:
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"{argument} must have texts as names, got {name!r}")


def _is_llm(value: Any) -> bool:
    from llama_index.core.llms import LLM

    return isinstance(value, LLM)


def _scores(name: str, evaluate: Evaluate, llm: Any) -> NDArray[np.float64]:
    return _numbers(name, evaluate(llm))


def _numbers(name: str, given: Any) -> NDArray[np.float64]:
    """Scores as an array, or what is wrong with them."""
    if isinstance(given, str | bytes | Mapping | Set):
        kind = type(given).__name__
        raise TypeError(f"{name} must give a list of numbers, one for each item, got {kind}")
    try:
        scores = np.asarray([float(value) for value in given], dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"{name} must give a list of numbers, one for each item: {exc}") from exc
    if not scores.size:
        raise ValueError(f"{name} must give one score for each item, got none")
    wrong = scores[~((scores >= 0) & (scores <= 1))]
    if wrong.size:
        raise ValueError(f"{name} must give scores between 0 and 1, got {wrong[0]}")
    return scores
