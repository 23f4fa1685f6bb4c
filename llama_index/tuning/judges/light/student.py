"""Which student learns: by its name, or as it was given; and the light one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.tuning.judges.student import Student, TrainingData, TrainingResult

if TYPE_CHECKING:
    from llama_index.tuning.judges.data import JudgeData


@dataclass(frozen=True)
class LightStudent:
    """A logistic regression on the light features: trains in a second, serves by NumPy."""

    name: ClassVar[str] = "light"
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "scikit-learn")
    embeds: ClassVar[bool] = True

    def check(self, data: JudgeData, held_out: JudgeData | None) -> None:
        """Nothing: it learns from whatever the engine lets through."""

    def learn(self, training: TrainingData) -> TrainingResult:
        """Cross-fit, fit on everything."""
        from llama_index.tuning.judges.light.fit import learn

        return learn(training)


def student_of(student: Any) -> Student:
    """The student of that name, or as it was given.

    Raises:
        ValueError: an unknown name.
        TypeError: no student.
    """
    if isinstance(student, str):
        if student != "light":
            raise ValueError(
                f"unknown student {student!r}; choose 'light', or give a student's options"
            )
        return LightStudent()
    if isinstance(student, type) or not all(hasattr(student, n) for n in ("check", "learn")):
        raise TypeError(f"student must be 'light' or a student's options, got {student!r}")
    found: Student = student
    return found
