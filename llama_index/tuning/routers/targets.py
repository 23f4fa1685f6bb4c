"""The right choices of some examples, and scores held against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.routers.linear import FloatArray, IntArray
from llama_index.tuning.routers.material import Material
from llama_index.tuning.routers.model import probabilities


@dataclass(frozen=True, eq=False)
class Targets:
    """The right choices of some examples, in rows of their own.

    Attributes:
        owner: the example of each label, shape `(labels,)`, from 0 to `size - 1`.
        labels: the choice, shape `(labels,)`.
        size: how many examples.
    """

    owner: IntArray
    labels: IntArray
    size: int

    @classmethod
    def of(cls, material: Material, examples: IntArray) -> Targets:
        """The targets of `examples`, in their order."""
        place = np.full(len(material.dataset), -1)
        place[examples] = np.arange(len(examples))
        keep = place[material.owner] >= 0
        return cls(place[material.owner[keep]], material.labels[keep], len(examples))

    def losses(self, logits: FloatArray, sharpness: float) -> NDArray[np.float64]:
        """Log loss of each example; of an example with several choices, their mean."""
        likely = np.maximum(probabilities(logits, sharpness)[self.owner, self.labels], 1e-12)
        total = np.bincount(self.owner, weights=-np.log(likely), minlength=self.size)
        counts = np.bincount(self.owner, minlength=self.size)
        mean: NDArray[np.float64] = total / np.maximum(counts, 1)
        return mean

    def correct(self, predicted: IntArray) -> NDArray[np.bool_]:
        """Whether the predicted choice is one of the right ones."""
        right = np.zeros(self.size, dtype=bool)
        right[self.owner[predicted[self.owner] == self.labels]] = True
        return right


def sharpness_of(logits: FloatArray, targets: Targets) -> float:
    """The factor on the logits that makes their probabilities calibrated (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    if logits.shape[1] < 2:
        return 1.0
    done = minimize_scalar(
        lambda log: float(targets.losses(logits, float(np.exp(log))).mean()),
        bounds=(-3.0, 3.0),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(done.x))


def trust(material: Material, examples: IntArray, logits: FloatArray) -> tuple[FloatArray, float]:
    """How far each label is to be trusted, and the share of labels that look wrong.

    A label looks wrong where held-out models find another choice as likely as they usually find
    that choice for its own examples (confident learning, Northcutt et al. 2021). It then counts
    by how likely it is beside the other choice.

    Args:
        material: the data.
        examples: which examples were scored.
        logits: by models that did not train on them, shape `(len(examples), choices)`.

    Returns:
        A factor for each label of the material, 1 for those of other examples; and the share.
    """
    targets = Targets.of(material, examples)
    chances = probabilities(logits, sharpness_of(logits, targets))
    own = chances[targets.owner, targets.labels]
    totals = np.bincount(targets.labels, weights=own, minlength=material.choices)
    counts = np.bincount(targets.labels, minlength=material.choices)
    usual = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
    wanted = np.zeros(chances.shape, dtype=bool)
    wanted[targets.owner, targets.labels] = True
    rival = np.where((chances >= usual) & ~wanted, chances, 0).max(axis=1)[targets.owner]
    wrong = rival > own
    factors = np.ones(len(material.labels), dtype=np.float32)
    inside = np.isin(material.owner, examples)
    factors[inside] = np.where(wrong, np.maximum(own / np.maximum(rival, 1e-9), 0.01), 1)
    return factors, float(wrong.mean())
