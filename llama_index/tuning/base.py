"""What every engine does, in what order; and one base class for each kind of component.

engine = XFinetuneEngine(dataset, ...)      # remembers; does no work
report = engine.finetune()                  # checks, tunes, decides, writes; returns the report
component = engine.get_finetuned_model()    # ready, or the base if no gain was shown
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.tuning._files import locked, read_json
from llama_index.tuning._running import is_main_process, own_work
from llama_index.tuning.artifacts import (
    CANDIDATE,
    REPORT,
    check_writable,
    replacing_folder,
    write_kept_base,
)
from llama_index.tuning.errors import ArtifactError, NotFinetunedError, TuningError
from llama_index.tuning.gate import Accept, check_accept, decide
from llama_index.tuning.report import FinetuneReport, installed_versions

if TYPE_CHECKING:
    from llama_index.core.base.base_selector import BaseSelector
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)


class BaseFinetuneEngine(ABC):
    """Trains one kind of component and measures what it gained.

    What `finetune()` asks of retrievers and models is no traffic of the app: no recorder records
    it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "finetune" in vars(cls):
            cls.finetune = own_work(cls.finetune)  # type: ignore[method-assign]

    @abstractmethod
    def finetune(self) -> FinetuneReport:
        """Train, measure and decide; may be called again, then it starts anew."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> Any:
        """The tuned component, or the base if the gate kept it."""


class BaseEmbeddingFinetuneEngine(BaseFinetuneEngine):
    """Tunes an embedding model."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned embedding model, or the base."""


class BaseSelectorFinetuneEngine(BaseFinetuneEngine):
    """Tunes a router's selector."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseSelector:
        """The tuned selector, or the base."""


class BaseRerankerFinetuneEngine(BaseFinetuneEngine):
    """Tunes a re-ranker."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the base."""


class BaseEvaluatorFinetuneEngine(BaseFinetuneEngine):
    """Tunes a judge."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEvaluator:
        """The tuned judge, or the base."""


class BaseLLMFinetuneEngine(BaseFinetuneEngine):
    """Tunes an LLM."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> LLM:
        """The tuned LLM, or the base."""


class FinetuneEngine(BaseFinetuneEngine):
    """The order of every engine: check, tune, decide, write, hand out.

    A new engine derives from this class and from the base class of its kind, stores its arguments
    in the constructor, and writes five methods: `_check`, `_tune`, `_write`, `_tuned`, `_base`.

    Attributes:
        kept: what a warning calls the component that stays after a refusal.
        libraries: packages whose versions the report names.
        reopens: whether another session's `get_finetuned_model()` opens what lies at
            `model_output_path`; `_tuned` then loads it from there.
        accept: `"gain"`, or `"always"` to take the tuned component whatever was measured.
        model_output_path: the folder to write; `None` writes nothing.
        report: of the last `finetune()`; `None` before.
    """

    kept: ClassVar[str] = "base model"
    libraries: ClassVar[tuple[str, ...]] = ()
    reopens: ClassVar[bool] = False
    accept: Accept = "gain"
    model_output_path: Path | None = None
    report: FinetuneReport | None = None
    _said_kept = False
    _in_memory = True
    """Whether `_write` can write; if not, what is served lies at `model_output_path` alone."""

    @abstractmethod
    def _check(self) -> None:
        """Refuse everything that can be wrong, before any work or cost."""

    @abstractmethod
    def _tune(self, clock: Clock) -> FinetuneReport:
        """Train and measure: a report without a verdict."""

    @abstractmethod
    def _write(self, folder: Path, report: FinetuneReport) -> None:
        """Write the tuned component into a folder that exists."""

    @abstractmethod
    def _tuned(self, **model_kwargs: Any) -> Any:
        """The tuned component."""

    @abstractmethod
    def _base(self, **model_kwargs: Any) -> Any:
        """The component that the app had before."""

    def _write_base(self, folder: Path, report: FinetuneReport) -> None:
        """Write what is served after a refusal; by default a note that names it."""
        write_kept_base(folder, self.kept, report.reason)

    def finetune(self) -> FinetuneReport:
        """Check, train, measure, decide and write.

        Returns:
            The report; `print(report)` shows the table and the verdict.

        Raises:
            ArtifactError: something else lies at `model_output_path`, or another run writes there.
        """
        check_accept(self.accept)
        if self.model_output_path is not None:
            check_writable(self.model_output_path)
        self._check()
        clock = Clock()
        with self._output_held():
            found = self._tune(clock)
            self._in_memory = True
            report = decided(found, self.accept, clock, self.libraries)
            if self.model_output_path is not None and is_main_process():
                self._save(self.model_output_path, report)
        self.report, self._said_kept = report, False
        logger.info("%s", report.reason)
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> Any:
        """The tuned component, or the base if the gate kept it.

        Args:
            **model_kwargs: arguments of the component.

        Raises:
            NotFinetunedError: `finetune()` has not run, nor is there a folder of it to open.
        """
        report = self._finished()
        if report.accepted:
            return self._tuned(**model_kwargs)
        if not self._said_kept:
            logger.warning("the %s is kept: %s; %s", self.kept, report.reason, OVERRIDE)
            self._said_kept = True
        return self._base(**model_kwargs)

    def save(self, path: str | Path) -> None:
        """Write what `get_finetuned_model()` stands for to another folder, with the report.

        Raises:
            NotFinetunedError: `finetune()` has not run.
            ArtifactError: something else lies there.
        """
        report = self._finished()
        check_writable(path)
        if self._in_memory or self.model_output_path is None:
            self._save(Path(path), report)
            return
        _say_if_replaced(Path(path), report)
        with replacing_folder(path) as folder:
            shutil.copytree(self.model_output_path, folder, dirs_exist_ok=True)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, token: str | None = None, **arguments: Any
    ) -> str:
        """Upload the output folder, with its card, to the Hugging Face hub.

        Its report stays here, since it holds users' questions and documents;
        `ignore_patterns=None` uploads it too.

        Args:
            repo_id: `"user/name"`; made if it does not exist.
            private: whether a new repository is private.
            token: of the hub; the one that is logged in by default.
            **arguments: of `HfApi.upload_folder`, such as `revision` and `commit_message`.

        Returns:
            The commit's address.

        Raises:
            ValueError: `repo_id` is no name.
            NotFinetunedError: `finetune()` has not run.
            TuningError: the gate kept the base, or nothing was written.
        """
        if not repo_id or not isinstance(repo_id, str):
            raise ValueError(f"repo_id must be a name such as 'me/my-model', got {repo_id!r}")
        report = self._finished()
        if not report.accepted:
            raise TuningError(
                f"nothing is uploaded, the {self.kept} is kept: {report.reason}; {OVERRIDE}"
            )
        if self.model_output_path is None:
            raise TuningError("nothing is uploaded: model_output_path was None, nothing is written")
        self._check_folder(report)
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        folder = str(self.model_output_path)
        arguments = {"ignore_patterns": [REPORT], **arguments}
        done = api.upload_folder(repo_id=repo_id, folder_path=folder, **arguments)
        return str(done.commit_url)

    def _finished(self) -> FinetuneReport:
        """The report of this session's run, or of the one that lies at `model_output_path`."""
        path = self.model_output_path
        if self.report is None and self.reopens and path is not None and (path / REPORT).is_file():
            logger.info("finetune() has not run in this session; %s is opened", path)
            self.report, self._in_memory = FinetuneReport.from_json(path / REPORT), False
        if self.report is None:
            raise NotFinetunedError("call finetune() first")
        if not self._in_memory:
            self._check_folder(self.report)
        return self.report

    def _check_folder(self, report: FinetuneReport) -> None:
        """What lies at `model_output_path` is of this run.

        Raises:
            ArtifactError: another run has replaced it.
        """
        file = None if self.model_output_path is None else self.model_output_path / REPORT
        if file is None or not file.is_file() or not is_main_process():
            return
        told = read_json(file, ArtifactError)
        if (told.get("date"), told.get("seconds")) != (report.date, report.seconds):
            raise ArtifactError(
                f"{self.model_output_path} holds another run by now; give each engine a "
                "model_output_path of its own"
            )

    def _save(self, path: Path, report: FinetuneReport) -> None:
        """The tuned component; or the base, with the refused one in `candidate/`."""
        _say_if_replaced(path, report)
        with replacing_folder(path) as folder:
            if report.accepted:
                self._write(folder, report)
            else:
                (folder / CANDIDATE).mkdir()
                self._write(folder / CANDIDATE, report)
                self._write_base(folder, report)
            report.save_json(folder / REPORT)

    @contextlib.contextmanager
    def _output_held(self) -> Iterator[None]:
        """One run at a time writes to an output folder."""
        if self.model_output_path is None or not is_main_process():
            yield
            return
        path = self.model_output_path.absolute()
        busy = ArtifactError(f"{path} is being written by another run; choose another folder")
        lock = path.with_name(f".{path.name}.lock")
        with locked(lock, busy):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows removes no open file
                    lock.unlink()


OVERRIDE = 'accept="always" overrides'


def decided(
    found: FinetuneReport, accept: Accept, clock: Clock, libraries: tuple[str, ...] = ()
) -> FinetuneReport:
    """The report with the gate's verdict, the seconds and the versions."""
    guards = {name: found.guard(name) for name in found.guards}
    verdict = decide(
        found.primary,
        found.gains[found.primary],
        guards,
        also={name: found.guard(name) for name in found.also_shown},
        accept=accept,
        unit=found.unit,
    )
    told = {"base": found.base, "measured on": found.measured_on}
    return replace(
        found,
        accepted=verdict.accepted,
        reason="; ".join([verdict.reason, *(f"{what}: {it}" for what, it in told.items() if it)]),
        date=found.date or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds={**found.seconds, **clock.seconds},
        versions=found.versions or installed_versions(*libraries),
    )


class Clock:
    """Seconds of each step.

    >>> clock = Clock()
    >>> with clock.step("embed"):
    ...     pass
    >>> list(clock.seconds)
    ['embed']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the block's seconds to a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self.seconds[name] = round(spent, 3)


def _say_if_replaced(path: Path, report: FinetuneReport) -> None:
    """Warn when the folder of another run is replaced: of another kind, or on other data."""
    try:
        old = read_json(path / REPORT)
        was = old["title"], old["data"].get("fingerprint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no report there: nothing that could be named
    if was != (report.title, report.data.get("fingerprint")):
        logger.warning("%s held another run (%s) and is replaced", path, was[0])
