"""A judge of the app's answers, learnt from verdicts that were given, or seen in the traffic."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning._checks import of_type
from llama_index.tuning.app.questions import read_log
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.judges.engine import JudgeFinetuneEngine
    from llama_index.tuning.judges.judge import TunedJudge


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a judge may learn from.

    Attributes:
        engine: that learns it; `None` if the traffic's verdicts cannot teach one.
        note: why.
    """

    engine: JudgeFinetuneEngine | None
    note: str = ""

    def learn(self) -> tuple[TunedJudge | None, str]:
        """The judge, if its gain over every shortcut is shown; and what to say of it."""
        from llama_index.tuning.judges.judge import TunedJudge

        if self.engine is None:
            return None, self.note
        report = self.engine.finetune()
        said = f"{len(self.engine.dataset)} verdicts: {report.reason}"
        if not report.accepted:
            return None, f"no judge of the answers is served, after {said}"
        judge = cast(TunedJudge, self.engine.get_finetuned_model())
        return judge, f"app.evaluator judges answers, learnt from {said}"


def verdicts(judgments: Any, traffic: Any, model: BaseEmbedding | None) -> Verdicts | None:
    """What was given, else what users and judges thought of the answers in the traffic, checked.

    Args:
        judgments: a `JudgmentDataset`, or a file of one.
        traffic: as of `tune_app`.
        model: the app's embedding model.

    Raises:
        TypeError: `judgments` is something else.
        DatasetError: what was given cannot teach a judge; of the traffic, that is a note.
    """
    if judgments is not None:
        return Verdicts(_checked(read_judgments(judgments), model))
    if traffic is None:
        return None
    try:
        found = read_log(traffic).judgment_dataset()
    except DatasetError:  # nobody said what an answer was worth
        return None
    try:
        return Verdicts(_checked(found, model))
    except DatasetError as exc:
        return Verdicts(None, f"no judge could be learnt from the traffic: {exc}")


def read_judgments(given: Any) -> JudgmentDataset:
    """A dataset, or a file of one: JSON Lines as it was saved, or a table."""
    if not isinstance(given, (str, PathLike)):
        of_type("judgments", given, JudgmentDataset, "a JudgmentDataset or a file of one")
        return cast(JudgmentDataset, given)
    if Path(fspath(given)).suffix == ".jsonl":
        return JudgmentDataset.from_jsonl(fspath(given))
    return JudgmentDataset.from_table(fspath(given))


def _checked(data: JudgmentDataset, model: BaseEmbedding | None) -> JudgeFinetuneEngine:
    """The engine, after it has looked at the verdicts."""
    from llama_index.tuning.judges.engine import JudgeFinetuneEngine

    engine = JudgeFinetuneEngine(data, model)
    engine._check()
    return engine
