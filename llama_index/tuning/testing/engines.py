"""What every engine does alike, whoever wrote it."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning import base
from llama_index.tuning._files import locked
from llama_index.tuning.base import FinetuneEngine
from llama_index.tuning.errors import ArtifactError, NotFinetunedError, TuningError
from llama_index.tuning.report import FinetuneReport


@dataclass(frozen=True)
class EngineCase:
    """An engine that is asked.

    Attributes:
        engine: its class.
        arguments: makes the arguments of a small run that shows no gain, given a folder for it.
        kind: the class of LlamaIndex that its component is.
        load: opens a written folder; given the arguments that the run had.
        numbers: names of arguments that must be whole numbers of at least 1.
    """

    engine: type[Any]
    arguments: Callable[[Path], dict[str, Any]]
    kind: type[Any]
    load: Callable[[Path, dict[str, Any]], Any]
    numbers: tuple[str, ...] = ()


@dataclass
class EngineRun:
    """A case with its arguments; both ends of the gate are run once, when they are asked for."""

    case: EngineCase
    folder: Path
    arguments: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.arguments = self.case.arguments(self.folder)

    def engine(self, **changes: Any) -> Any:
        """A new engine, with other arguments where they are given."""
        return self.case.engine(**{"model_output_path": None, **self.arguments, **changes})

    def load(self, path: Path) -> Any:
        """The component of a folder."""
        return self.case.load(path, self.arguments)

    @cached_property
    def refused(self) -> Any:
        """An engine after a run whose gain was not shown."""
        return self._finished("gain")

    @cached_property
    def accepted(self) -> Any:
        """An engine after a run that was to be accepted in any case."""
        return self._finished("always")

    def _finished(self, accept: str) -> Any:
        engine = self.engine(model_output_path=self.folder / accept, accept=accept)
        engine.finetune()
        return engine

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """An empty folder, removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)


_BASES: dict[type[Any], type[Any]] = {
    BaseEmbedding: base.BaseEmbeddingFinetuneEngine,
    BaseSelector: base.BaseSelectorFinetuneEngine,
    BaseNodePostprocessor: base.BaseRerankerFinetuneEngine,
    BaseEvaluator: base.BaseEvaluatorFinetuneEngine,
    LLM: base.BaseLLMFinetuneEngine,
}


def check_engine(case: EngineCase, folder: Path) -> None:
    """Ask of an engine what is asked of every engine, on a small run of it.

    Args:
        case: the engine, its arguments, and how its folder is opened.
        folder: to build and write in.

    Raises:
        AssertionError: it does otherwise.

    Example:
        >>> def test_my_engine(tmp_path):  # doctest: +SKIP
        ...     check_engine(EngineCase(MyEngine, arguments, BaseSelector, load), tmp_path)
        ...     check_component(load(tmp_path / "always", arguments))
    """
    run = EngineRun(case, folder)
    for check in ENGINE_CHECKS:
        check(run)


def it_is_built_on_the_template(run: EngineRun) -> None:
    """The order of a run is the same: an engine overrides `finetune` to name its report alone.

    It derives from the base class of its kind, too.
    """
    engine = run.case.engine
    assert issubclass(engine, FinetuneEngine), f"{engine.__name__} is no FinetuneEngine"
    kind = next((of for part, of in _BASES.items() if issubclass(run.case.kind, part)), None)
    if kind is not None:
        assert issubclass(engine, kind), f"{engine.__name__} is no {kind.__name__}"
    if "finetune" in vars(engine):
        assert "super().finetune()" in inspect.getsource(engine.finetune)


def before_finetune_there_is_no_report_and_no_model(run: EngineRun) -> None:
    """Asked too early, it says what to call first."""
    engine = run.engine()
    assert engine.report is None
    with refuses(NotFinetunedError, r"call finetune\(\) first"):
        engine.get_finetuned_model()
    with refuses(NotFinetunedError, r"call finetune\(\) first"):
        engine.push_to_hub("me/it")


def the_constructor_refuses_wrong_arguments(run: EngineRun) -> None:
    """Mistakes are named where they are made, before any work."""
    with refuses(ValueError, "unknown accept 'maybe'; choose one of: gain, always"):
        run.engine(accept="maybe")
    with refuses(TypeError, r"options must be .*Options, got str"):
        run.engine(options="x")
    with refuses(TypeError, "model_output_path must be a path, got 5"):
        run.engine(model_output_path=5)
    for name in run.case.numbers:
        for value in (0, 2.5, "3", True):
            with refuses(ValueError, f"{name} must be a whole number >= "):
                run.engine(**{name: value})


def wrong_data_is_refused_without_a_cost(run: EngineRun) -> None:
    """The message names the data."""
    subject = list(inspect.signature(run.case.engine.__init__).parameters)[1]
    with refuses((TypeError, ValueError), f"{subject}|dataset"):
        run.engine(**{subject: 5}).finetune()


def a_folder_of_others_is_refused_before_any_work(run: EngineRun) -> None:
    """Nothing that is no component is overwritten."""
    with run.new_folder() as folder:
        thesis = folder / "thesis" / "chapter.txt"
        thesis.parent.mkdir()
        thesis.write_text("years of work")
        with refuses(ArtifactError, "is not a saved component"):
            run.engine(model_output_path=thesis.parent).finetune()
        assert thesis.read_text() == "years of work"


def finetune_returns_the_report_and_keeps_it(run: EngineRun) -> None:
    """With verdict, versions, data and seconds; in the folder too."""
    for engine in (run.refused, run.accepted):
        report = engine.report
        assert isinstance(report, FinetuneReport)
        assert report.reason
        assert report.versions["llama-index-core"]
        assert report.data.get("fingerprint")
        assert report.seconds
        read = type(report).from_json(engine.model_output_path / "report.json")
        assert _plain(read) == _plain(report), "report.json holds another report"
    assert not run.refused.report.accepted, "the data of the case were to show no gain"
    assert run.accepted.report.accepted


def an_accepted_component_is_ready_and_loads(run: EngineRun) -> None:
    """From the engine and from its folder."""
    engine, kind = run.accepted, run.case.kind
    assert isinstance(engine.get_finetuned_model(), kind)
    assert isinstance(run.load(engine.model_output_path), kind)


def a_refusal_hands_out_the_base_and_says_so_once(run: EngineRun) -> None:
    """With what would override it."""
    run.refused._said_kept = False
    with logged() as said:
        base = run.refused.get_finetuned_model()
        run.refused.get_finetuned_model()
    kept = [text for text in said if 'accept="always" overrides' in text]
    assert len(kept) == 1, f"said {len(kept)} times"
    assert "is kept" in kept[0]
    assert isinstance(base, run.case.kind)


def a_refused_candidate_lies_beside_the_base(run: EngineRun) -> None:
    """It loads from `candidate/`; the folder serves the base, or says that it was kept."""
    folder = run.refused.model_output_path
    assert isinstance(run.load(folder / "candidate"), run.case.kind)
    try:
        found = run.load(folder)
    except ArtifactError as exc:
        _has(str(exc), "is kept.*candidate")
    else:
        assert isinstance(found, run.case.kind)


def without_an_output_path_nothing_is_written(run: EngineRun) -> None:
    """And without `show_progress` nothing is drawn."""
    before = Path.cwd()
    drawn = io.StringIO()
    with run.new_folder() as folder:
        os.chdir(folder)
        try:
            engine = run.engine(accept="always")
            with contextlib.redirect_stderr(drawn):
                engine.finetune()
            assert isinstance(engine.get_finetuned_model(), run.case.kind)
        finally:
            os.chdir(before)
        left = [p.name for p in folder.iterdir() if not p.name.endswith((".run", ".checkpoints"))]
        assert not left, f"written: {left}"
    assert "%|" not in drawn.getvalue(), "a bar that nobody asked for"


def save_writes_it_elsewhere(run: EngineRun) -> None:
    """A copy loads as the original does."""
    with run.new_folder() as folder:
        run.accepted.save(folder / "copy")
        assert isinstance(run.load(folder / "copy"), run.case.kind)
        assert (folder / "copy" / "report.json").is_file()


def the_folder_holds_a_model_card(run: EngineRun) -> None:
    """What `push_to_hub` uploads says what it is."""
    card = run.accepted.model_output_path / "README.md"
    assert card.is_file(), "there is no README.md"
    assert card.read_text(encoding="utf-8").strip(), "README.md says nothing"


def what_was_refused_is_not_uploaded(run: EngineRun) -> None:
    """Nor is anything without a name."""
    with refuses(TuningError, "nothing is uploaded"):
        run.refused.push_to_hub("me/it")
    with refuses(ValueError, "repo_id"):
        run.refused.push_to_hub("")


def two_runs_do_not_write_to_one_folder(run: EngineRun) -> None:
    """The second is told at once."""
    with (
        run.new_folder() as folder,
        locked(folder / ".out.lock", AssertionError("held")),
        refuses(ArtifactError, "is being written by another run"),
    ):
        run.engine(model_output_path=folder / "out").finetune()


def replacing_another_run_is_said(run: EngineRun) -> None:
    """It may have been a mistake."""
    with run.new_folder() as folder:
        run.refused.save(folder / "out")
        other = folder / "out" / "report.json"
        other.write_text(other.read_text().replace(run.refused.report.title, "something else"))
        with logged() as said:
            run.refused.save(folder / "out")
    assert any("held another run" in text for text in said)


ENGINE_CHECKS: tuple[Callable[[EngineRun], None], ...] = (
    it_is_built_on_the_template,
    before_finetune_there_is_no_report_and_no_model,
    the_constructor_refuses_wrong_arguments,
    wrong_data_is_refused_without_a_cost,
    a_folder_of_others_is_refused_before_any_work,
    finetune_returns_the_report_and_keeps_it,
    an_accepted_component_is_ready_and_loads,
    a_refusal_hands_out_the_base_and_says_so_once,
    a_refused_candidate_lies_beside_the_base,
    without_an_output_path_nothing_is_written,
    save_writes_it_elsewhere,
    the_folder_holds_a_model_card,
    what_was_refused_is_not_uploaded,
    two_runs_do_not_write_to_one_folder,
    replacing_another_run_is_said,
)
"""The checks, in the order in which `check_engine` makes them."""


@contextlib.contextmanager
def refuses(kinds: type[Exception] | tuple[type[Exception], ...], pattern: str) -> Iterator[None]:
    """The block raises one of these errors, with words that the pattern finds."""
    try:
        yield
    except kinds as exc:
        _has(str(exc), pattern)
    else:
        raise AssertionError(f"not refused; wanted {kinds} with {pattern!r}")


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Warnings of this package that the block logs."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, logger = Keep(logging.WARNING), logging.getLogger("llama_index.tuning")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _has(message: str, pattern: str) -> None:
    assert re.search(pattern, message, re.S), f"the message {message!r} lacks {pattern!r}"


def _plain(report: FinetuneReport) -> Any:
    return json.loads(json.dumps(report.to_dict()))
