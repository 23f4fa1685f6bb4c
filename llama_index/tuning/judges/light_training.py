"""The light student at work."""

from __future__ import annotations

from dataclasses import asdict

from llama_index.tuning.judges.familiar import familiar_of
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.fitting import Fitted, fit
from llama_index.tuning.judges.light import LightJudge
from llama_index.tuning.judges.student import Learnt, Lesson, Opinions


def learn(lesson: Lesson) -> Learnt:
    """Fit on all verdicts; opinions on the held-out ones, or cross-fitted ones on its own."""
    material = lesson.material
    fitted = fit(lesson.rows, lesson.options)
    table = lesson.rows.table if lesson.other is None else lesson.other
    model = LightJudge(
        lesson.maker,
        fitted.linear,
        fitted.line,
        pairwise=material.pairwise,
        query=material.query,
        base_model=lesson.base_model,
        training_keys=tuple(dict.fromkeys(material.keys)),
        familiar=familiar_of(lesson.rows),
    )
    return Learnt(
        model=model,
        opinions=opinions(fitted, lesson.other),
        method="cross-fitting" if lesson.held_out is None else "validation verdicts",
        flip_rate=flips(fitted, table) if material.pairwise else None,
        settings=asdict(fitted.setting),
    )


def opinions(fitted: Fitted, table: Floats | None) -> Opinions:
    """Held-out opinions on the training rows, or opinions on another table."""
    if table is None:
        return Opinions(fitted.chances, fitted.verdicts, fitted.certainties)
    chances = fitted.line.chances(fitted.linear.logits(table))
    return Opinions(chances, fitted.line.verdicts(chances), fitted.line.certainties(chances))


def flips(fitted: Fitted, table: Floats) -> float:
    """Share of pairs whose verdict changes when the responses change places."""
    one, other = opinions(fitted, table), opinions(fitted, -table)
    return float((one.verdicts != 1 - other.verdicts).mean())
