"""What the report of an encoder judge says in words."""

from __future__ import annotations

import numpy as np

from llama_index.tuning.judges.encoder import Average
from llama_index.tuning.judges.material import Material
from llama_index.tuning.judges.measuring import equal_length_auroc
from llama_index.tuning.judges.student import Opinions
from llama_index.tuning.judges.windows import Reader


def notes_of(
    material: Material,
    measured: Material,
    opinions: Opinions,
    average: Average,
    reader: Reader,
    chosen_on: int,
) -> list[str]:
    """Who was trained on what, what could not be read whole, and what length explains.

    Args:
        material: all verdicts that were learnt from.
        measured: those that the opinions are on.
        opinions: held out.
        average: what was chosen.
        reader: how items are read.
        chosen_on: number of verdicts that were held out to choose on.
    """
    trained = len(material.items) - chosen_on
    chosen = "calibration and threshold"
    if average.light is not None:
        chosen = "calibration, threshold and the weight of the average"
    notes = [f"trained on {trained} verdicts; {chosen_on} on other queries chose {chosen}"]
    if average.light is not None:
        notes.append(f"the encoder's weight in the average with the light judge: {average.share}")
        if average.share == 0:
            notes.append("the encoder adds nothing: student='light' is as good and faster")
    return [*notes, *cut_notes(material, reader), *length_notes(measured, opinions)]


def cut_notes(material: Material, reader: Reader) -> list[str]:
    """How many items lose a part."""
    cut = sum(map(reader.is_cut, material.items))
    if not cut:
        return []
    what = "queries or responses" if material.pairwise else "queries"
    return [f"{cut} of {len(material.items)} verdicts have {what} too long to be read whole"]


def length_notes(material: Material, opinions: Opinions) -> list[str]:
    """How much is left of the AUC between answers of equal length."""
    from sklearn.metrics import roc_auc_score

    if material.pairwise or len(np.unique(material.labels)) < 2:
        return []
    words = np.array([len((item.response or "").split()) for item in material.items])
    found = equal_length_auroc(material.labels, opinions.chances, words)
    if found is None:
        return ["no two answers of different verdicts are equally long"]
    overall = float(roc_auc_score(material.labels, opinions.chances))
    note = (
        f"AUC {overall:.3f}; between answers of equally many words {found[0]:.3f} "
        f"({found[1]} pairs; length alone: 0.5)"
    )
    if found[0] - 0.5 < (overall - 0.5) / 2:
        note += ": most of what it knows is the length"
    return [note]
