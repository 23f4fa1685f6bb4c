"""One fit of a router with a given setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.routers.data import RouterData, training_rows
from llama_index.tuning.routers.linear import Rows, Solution, fit
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.serving.model import Lexicon

MAX_TERMS = 4000
MAX_WORD_WEIGHTS = 400_000
"""Terms times choices: bounds what the words add to a fit."""


@dataclass(frozen=True)
class Setting:
    """What cross-fitting chooses.

    Attributes:
        tau: variance of the prior.
        words: length of the words' features beside the vector's, which is 1; 0 for none.
        described: how far a choice's weights lean towards its description before any example.
        noise_robust: whether labels that look wrong count less.
    """

    tau: float
    words: float = 0.0
    described: float = 0.0
    noise_robust: bool = False


def fit_all(
    data: RouterData, options: RouterOptions, setting: Setting, start: Solution | None = None
) -> tuple[Solution, Lexicon | None]:
    """The final fit, on every in-scope example."""
    lexicon = build_lexicon(data, data.texts(data.in_scope), setting.words)
    rows = training_rows(
        data,
        data.in_scope,
        lexicon,
        balanced=options.balanced,
    )
    return fit_rows(rows, data.described, setting, start), lexicon


def fit_rows(
    rows: Rows, described: Float32, setting: Setting, start: Solution | None = None
) -> Solution:
    """Fit rows whose labels count the rows of `described`, shape `(choices, dim)`."""
    return fit(rows, len(described), setting.tau, centre=leaning(described, setting), start=start)


def leaning(described: Float32, setting: Setting) -> Float32 | None:
    """The prior's mean: each choice's weights lean on its description's vector."""
    known = np.einsum("ij,ij->i", described, described) > 0
    if not setting.described or not known.any():
        return None
    apart = np.where(known[:, None], described - described[known].mean(axis=0), 0)
    return (setting.described * apart).astype(np.float32)


def build_lexicon(data: RouterData, texts: list[str], scale: float) -> Lexicon | None:
    """The words of some training queries; `None` if words are not used, or none repeats."""
    if not scale:
        return None
    most = min(MAX_TERMS, max(100, MAX_WORD_WEIGHTS // data.choices))
    built = Lexicon.build(texts, scale=scale, max_terms=most)
    return built if len(built) else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrix products use one thread: several, with a busy neighbour, wait for each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
