"""Tunes an LLM by a job at OpenAI, or at any server with OpenAI's protocol."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._locks import locked
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import (
    HostedError,
    JobNotFinishedError,
    NotFinetunedError,
    RunFileError,
)
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.llms.evaluation import Evaluate, check_callables
from llama_index.tuning.llms.hosted_calls import Calls, Clock, checked, listed
from llama_index.tuning.llms.hosted_client import (
    Server,
    check_client,
    check_open,
    make_client,
    secrets_of,
    server_of,
)
from llama_index.tuning.llms.hosted_estimate import JobEstimate, Tokenizer, estimate_job
from llama_index.tuning.llms.hosted_file import TrainingFile, shared_lines, training_file
from llama_index.tuning.llms.hosted_follow import SUCCEEDED, Follower
from llama_index.tuning.llms.hosted_llm import hosted_llm
from llama_index.tuning.llms.hosted_options import JobOptions, Method
from llama_index.tuning.llms.hosted_report import Measuring, hosted_report
from llama_index.tuning.llms.hosted_state import JobState
from llama_index.tuning.llms.hosted_submit import ENDED_BADLY, Submitter
from llama_index.tuning.report import FinetuneReport

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

    from llama_index.tuning.collect.callbacks import OpenAIFineTuningHandler

logger = logging.getLogger(__name__)

MOST_CHECKPOINTS = 1000
DataLike = PathLike | ChatDataset


@dataclass
class _Session:
    """What exists from the first request on."""

    calls: Calls
    server: Server
    state: JobState
    submitter: Submitter


@dataclass
class _Files:
    training: TrainingFile
    validation: TrainingFile | None
    estimate: JobEstimate
    key: str = field(default="")


class OpenAIFinetuneEngine(BaseLLMFinetuneEngine):
    """Tunes an LLM by a hosted job, supervised or by preferences.

    The server is OpenAI's, Azure's, or any other with the same protocol. Each run makes one upload
    and one job, however often it is interrupted and started again: data and options decide which
    run it is, and the state file and the server's own lists find it again. For another job on the
    same data change an option, such as `seed` or `metadata`.

    Args:
        base_model: the model's name at the server.
        data_path: a JSON Lines file in OpenAI's format, or a `ChatDataset`; may be left out with
            `start_job_id`.
        verbose: log the job's events at level INFO, else DEBUG.
        start_job_id: follow this job; nothing is uploaded and none is made.
        validate_json: check every line of a file before anything is sent.
        client: `openai.OpenAI` or `openai.AzureOpenAI`.
        base_url: a server's address, instead of a client.
        api_key: its key; by default `OPENAI_API_KEY`, for OpenAI only.
        method: `"supervised"`, or `"dpo"` for preferences.
        hyperparameters: see `JobOptions`.
        suffix: becomes part of the tuned model's name.
        seed: the server's seed.
        validation_data: as `data_path`; the server measures its loss.
        metadata: texts that the server keeps with the job.
        integrations: passed on to the server.
        extra_body: fields that only this server knows.
        evaluate: gives an LLM a score between 0 and 1 for each of your held-out items; makes base
            against tuned measured and gated. Without it nothing is measured.
        protect: abilities that must not be lost, by name: each gives an LLM a score between 0
            and 1 for each item that is to stay as it was; the gate refuses a loss.
        accept: `"gain"`, or `"always"` to take the tuned LLM whatever was measured.
        base_llm: what is compared with and kept; by default `base_model` at the same server.
        deployment: Azure's name for the running tuned model.
        price: of a million trained tokens, for `estimate()`.
        max_cost: a dearer estimate is an error, before anything is sent.
        tokenizer: text → tokens, for the estimate.
        max_tokens: a longer conversation is an error; servers cut it in silence.
        min_examples: fewer are an error; OpenAI asks for 10.
        timeout: seconds to wait for the job; None: for ever.
        poll_interval: seconds between two looks at the job.
        file_timeout: seconds to wait for the uploaded file.
        state_path: file that remembers uploads and jobs; by default `<data_path>.job.json`, and
            none for a dataset.
        show_progress: show a bar.
        clock: time and date, for tests; its `today` decides which services are closed.

    Example:
        >>> engine = OpenAIFinetuneEngine(  # doctest: +SKIP
        ...     "meta-llama/Meta-Llama-3.1-8B-Instruct", "train.jsonl",
        ...     base_url="https://api.tokenfactory.nebius.com/v1", api_key=key,
        ... )
        >>> print(engine.estimate())  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> llm = engine.get_finetuned_model()  # doctest: +SKIP
    """

    def __init__(
        self,
        base_model: str,
        data_path: DataLike | None = None,
        verbose: bool = False,
        start_job_id: str | None = None,
        validate_json: bool = True,
        *,
        client: OpenAI | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        method: Method = "supervised",
        hyperparameters: Mapping[str, Any] | None = None,
        suffix: str | None = None,
        seed: int | None = None,
        validation_data: DataLike | None = None,
        metadata: Mapping[str, str] | None = None,
        integrations: Sequence[Mapping[str, Any]] = (),
        extra_body: Mapping[str, Any] | None = None,
        evaluate: Evaluate | None = None,
        protect: Mapping[str, Evaluate] | None = None,
        accept: Accept = "gain",
        base_llm: LLM | None = None,
        deployment: str | None = None,
        price: float | None = None,
        max_cost: float | None = None,
        tokenizer: Tokenizer | None = None,
        max_tokens: int | None = None,
        min_examples: int = 10,
        timeout: float | None = 86_400.0,
        poll_interval: float = 15.0,
        file_timeout: float = 600.0,
        state_path: PathLike | None = None,
        show_progress: bool = False,
        clock: Clock | None = None,
    ) -> None:
        check_accept(accept)
        self.options = JobOptions(
            model=base_model, method=method, hyperparameters=hyperparameters or {}, suffix=suffix,
            seed=seed, metadata=metadata or {}, integrations=integrations,
            extra_body=extra_body or {},
        )  # fmt: skip
        if data_path is None and start_job_id is None:
            raise ValueError("data_path is needed, or start_job_id of a job that exists")
        _check_data(data_path=data_path, validation_data=validation_data)
        check_callables(evaluate, protect or {})
        if protect and evaluate is None:
            raise ValueError("protect needs evaluate too: the gate looks at a gain first")
        if max_cost is not None and price is None:
            raise ValueError("max_cost needs price, of a million trained tokens")
        _check_seconds(timeout=timeout, poll_interval=poll_interval, file_timeout=file_timeout)
        if client is not None:
            check_client(client)
        self.data_path, self.validation_data = data_path, validation_data
        self.verbose, self.validate_json = verbose, validate_json
        self.start_job_id = start_job_id
        self._server_arguments = (client, base_url, api_key)
        self.evaluate, self.protect, self.accept = evaluate, dict(protect or {}), accept
        self.base_llm, self.deployment = base_llm, deployment
        self.price, self.max_cost, self.tokenizer = price, max_cost, tokenizer
        self.max_tokens, self.min_examples = max_tokens, min_examples
        self.timeout, self.poll_interval = timeout, poll_interval
        self.file_timeout, self.state_path = file_timeout, state_path
        self.show_progress, self.clock = show_progress, clock or Clock()
        self._opened: _Session | None = None
        self._read_files: _Files | None = None
        self._job_id = start_job_id
        self._report: FinetuneReport | None = None

    @classmethod
    def from_finetuning_handler(
        cls,
        finetuning_handler: OpenAIFineTuningHandler,
        base_model: str,
        data_path: PathLike,
        **kwargs: Any,
    ) -> OpenAIFinetuneEngine:
        """An engine on what a handler collected.

        Args:
            finetuning_handler: its exchanges are written to `data_path`.
            base_model: the model to tune.
            data_path: the training file to write.
            **kwargs: the engine's other arguments.
        """
        least = kwargs.get("min_examples", 10)
        finetuning_handler.save_finetuning_events(data_path, min_examples=least)
        return cls(base_model, data_path, **kwargs)

    def estimate(self) -> JobEstimate:
        """Tokens and, given a price, cost; the data is checked, and nothing is sent.

        Raises:
            DatasetError: the data cannot be learnt from.
        """
        return self._files().estimate

    def submit(self) -> Any:
        """Bring data and job to the server, once, and return the job without waiting for it.

        Raises:
            HostedEndedError: the server takes no new jobs.
            HostedError: the server refuses, or cannot be reached.
            ValueError: the estimate is above `max_cost`; and other misuse, before anything is sent.
        """
        session = self._session()
        if self._follows():
            return session.submitter.retrieve(self._current_id())
        files = self._checked_files(session)
        with self._lock(session):
            job = session.submitter.job(self.options, files.training, files.validation)
        self._job_id = job.id
        return job

    def finetune(self, *, wait: bool = True) -> FinetuneReport:
        """Submit, wait for the end, measure and decide; called again, it goes on where it was.

        Args:
            wait: False returns a report of a job that may still run, and measures nothing.

        Raises:
            JobError: the job failed or was cancelled.
            JobNotFinishedError: it still runs after `timeout`.
            HostedEndedError, HostedError, ValueError: see `submit`.
        """
        started = time.perf_counter()
        session = self._session()
        if not self._follows():
            self._checked_files(session)
        measuring = Measuring(self.evaluate, self.protect, self.accept)
        if wait:  # a faulty evaluate fails before any cost
            measuring.before(lambda: self._base(session))
        job = self.submit()
        follower = self._follower(session, job)
        if wait:
            job = follower.wait()
            if self._can_answer(job):
                measuring.after(lambda: self._served(session, job))
        seconds = round(time.perf_counter() - started, 3)
        self._report = hosted_report(
            self.options, session.server, job, measuring,
            estimate=None if self._read_files is None else self._read_files.estimate,
            history=follower.history, seconds=seconds, needs_deployment=self._needs_deployment(),
        )  # fmt: skip
        return self._report

    def get_current_job(self) -> Any:
        """The job as it is at the server now.

        Raises:
            NotFinetunedError: there is none yet.
        """
        return self._session().submitter.retrieve(self._current_id())

    def get_finetuned_model(self, **model_kwargs: Any) -> LLM:
        """The tuned LLM, or the base where `evaluate` showed no gain.

        Args:
            **model_kwargs: arguments of the LLM's class (`temperature`, `context_window`, …);
                `model` names another model, such as a checkpoint's; `engine` or `deployment` is
                Azure's name for it.

        Returns:
            `OpenAI` or `AzureOpenAI` where they know the model, else `OpenAILike`.

        Raises:
            NotFinetunedError: there is no job yet, or `evaluate` did not measure it yet.
            JobNotFinishedError: it still runs.
            HostedError: it failed, was cancelled, or names no model.
            HostedEndedError: the server has shut its tuned models down.
        """
        session = self._session()
        job = self.get_current_job()
        if job.status != SUCCEEDED:
            raise _no_model(job)
        if self._keeps_base():
            return self._base(session)
        return self._tuned(session, job, model_kwargs)

    def _keeps_base(self) -> bool:
        """What the gate decided; without `evaluate` there was nothing to decide on."""
        report = self._report
        if self.evaluate is None or self.accept == "always":
            if report is None or not report.gains:
                logger.warning("the tuned LLM is used unmeasured")
            return False
        if report is None or not report.gains:
            raise NotFinetunedError(
                "evaluate= was given and nothing is measured yet: call finetune(), on Azure with "
                'deployment= of the tuned model; accept="always" takes the tuned LLM unmeasured'
            )
        if not report.accepted:
            logger.warning('the base is kept: %s; accept="always" would override it', report.reason)
        return not report.accepted

    def cancel(self) -> Any:
        """End the job; what it trained so far may stay as checkpoints."""
        return self._act("cancel")

    def pause(self) -> Any:
        """Hold the job; it goes on after `resume()`."""
        return self._act("pause")

    def resume(self) -> Any:
        """Let a paused job go on."""
        return self._act("resume")

    def events(self, limit: int = 100) -> list[Any]:
        """The job's newest events, in the order in which they happened."""
        calls, job_id = self._session().calls, self._current_id()
        jobs = calls.quick.fine_tuning.jobs
        newest = partial(jobs.list_events, job_id, limit=limit)
        found = calls.send("list events", lambda: list(listed(newest, limit)))
        return found[::-1]

    def checkpoints(self) -> list[Any]:
        """The models that the job saved on its way, the newest first."""
        calls, job_id = self._session().calls, self._current_id()
        checkpoints = calls.quick.fine_tuning.jobs.checkpoints
        newest = partial(checkpoints.list, job_id)
        return calls.send("list checkpoints", lambda: list(listed(newest, MOST_CHECKPOINTS)))

    def _act(self, action: str) -> Any:
        session, job_id = self._session(), self._current_id()
        act = getattr(session.calls.quick.fine_tuning.jobs, action)
        try:
            return session.calls.send(
                f"{action} job {job_id}", lambda: checked(act(job_id), "id", "status")
            )
        except HostedError as exc:
            # The reply to the first try may have been lost: what counts is where the job is now.
            done = {"cancel": ("cancelled",), "pause": ("paused", "pausing")}.get(action, ())
            job = session.submitter.retrieve(job_id) if exc.status in (400, 409) and done else None
            if job is not None and job.status in done:
                return job
            raise

    def _session(self) -> _Session:
        if self._opened is None:
            client = self._make_client(*self._server_arguments)
            server = server_of(client)
            self.options.check_for(server.kind)
            calls = Calls(client, server.address, secrets_of(client), self.clock)
            state = JobState(self._state_path(), server.address)
            submitter = Submitter(calls, server.kind, state, self.file_timeout)
            self._opened = _Session(calls, server, state, submitter)
        return self._opened

    def _make_client(self, client: Any, base_url: str | None, api_key: str | None) -> OpenAI:
        return make_client(client, base_url, api_key)

    def _state_path(self) -> Path | None:
        if self.state_path is not None:
            return Path(self.state_path)
        if self.data_path is None or isinstance(self.data_path, ChatDataset):
            return None
        return Path(f"{Path(self.data_path)}.job.json")

    def _lock(self, session: _Session) -> AbstractContextManager[None]:
        path = session.state.path
        if path is None:
            return nullcontext()
        refusal = RunFileError(f"{path} is in use by another run, which is making a job right now")
        return locked(Path(f"{path}.lock"), refusal)

    def _files(self) -> _Files:
        if self.data_path is None:
            raise ValueError("data_path is needed for that; only start_job_id was given")
        if self._read_files is None:
            training = self._file(self.data_path, "data_path", self.min_examples)
            validation = None
            if self.validation_data is not None:
                validation = self._file(self.validation_data, "validation_data", 1)
                _warn_of_overlap(training, validation)
            estimate = estimate_job(
                training, self.options.hyperparameters, price=self.price,
                tokenizer=self.tokenizer, max_tokens=self.max_tokens,
            )  # fmt: skip
            key = self.options.run_key(training.sha256, validation.sha256 if validation else None)
            self._read_files = _Files(training, validation, estimate, key)
        return self._read_files

    def _file(self, data: DataLike, name: str, least: int) -> TrainingFile:
        method, validate = self.options.method, self.validate_json
        return training_file(data, method, min_examples=least, validate=validate, name=name)

    def _follows(self) -> bool:
        return self.start_job_id is not None and self._job_id == self.start_job_id

    def _checked_files(self, session: _Session) -> _Files:
        """The data, once nothing speaks against sending it."""
        files = self._files()
        known = session.submitter.known_job(files.key)
        if known is None or known.status in ENDED_BADLY:
            check_open(session.server, self.clock.today, new_job=True)
        cost = files.estimate.cost
        if self.max_cost is not None and cost is not None and cost > self.max_cost:
            raise ValueError(
                f"max_cost is {self.max_cost}, the estimate is above: {files.estimate}"
            )
        try:
            session.state.save()  # a folder that cannot be written is found before the upload
        except OSError as exc:
            if self.state_path is not None:
                raise
            logger.warning("no state is kept, the job is found again at the server: %s", exc)
            session.state.path = None
        return files

    def _current_id(self) -> str:
        if self._job_id is None and self.data_path is not None:
            found = self._session().state.run(self._files().key).get("job_id")
            self._job_id = found if isinstance(found, str) else None
        if self._job_id is None:
            raise NotFinetunedError("call finetune() or submit() first; there is no job yet")
        return self._job_id

    def _follower(self, session: _Session, job: Any) -> Follower:
        def note(changed: Any) -> None:
            if self._read_files is not None and self._job_id != self.start_job_id:
                session.submitter.note(self._read_files.key, changed)

        return Follower(
            session.calls, job.id, timeout=self.timeout, poll_interval=self.poll_interval,
            new=job.id != self.start_job_id, on_status=note, show_progress=self.show_progress,
            level=logging.INFO if self.verbose else logging.DEBUG,
        )  # fmt: skip

    def _needs_deployment(self) -> bool:
        return self._session().server.kind == "azure" and self.deployment is None

    def _can_answer(self, job: Any) -> bool:
        return bool(self.deployment or job.fine_tuned_model) and not self._needs_deployment()

    def _base(self, session: _Session) -> LLM:
        if self.base_llm is not None:
            return self.base_llm
        if session.server.kind == "azure":
            raise ValueError(
                "base_llm is needed on Azure: an LLM on a deployment of the base model, which the "
                "tuned one is compared with"
            )
        return hosted_llm(session.calls.client, self.options.model)

    def _tuned(self, session: _Session, job: Any, model_kwargs: Mapping[str, Any]) -> LLM:
        check_open(session.server, self.clock.today, new_job=False)
        given = dict(model_kwargs)
        deployment = given.pop("deployment", None) or given.pop("engine", None) or self.deployment
        model = given.pop("model", None) or job.fine_tuned_model or deployment
        if not model:
            raise HostedError(
                f"job {job.id} succeeded and names no model: this server wants it deployed first "
                "(checkpoints() lists what was saved); then pass its name as model="
            )
        return hosted_llm(
            session.calls.client, model,
            base_model=self.options.model, deployment=deployment, **given,
        )  # fmt: skip

    def _served(self, session: _Session, job: Any) -> LLM:
        """The tuned LLM once it answers: right after the job a server may not know it yet."""
        model = self.deployment or job.fine_tuned_model
        session.submitter.wait_until_served(model, self.file_timeout)
        return self._tuned(session, job, {})


def _warn_of_overlap(training: TrainingFile, validation: TrainingFile) -> None:
    shared = shared_lines(training, validation)
    if shared:
        logger.warning(
            "%d lines of validation_data are in data_path too: the server's validation loss will "
            "look better than it is",
            shared,
        )


def _no_model(job: Any) -> Exception:
    if job.status in ENDED_BADLY:
        return HostedError(f"job {job.id} has status {job.status}: there is no tuned model")
    return JobNotFinishedError(
        f"job {job.id} is still {job.status}; finetune() waits for it",
        job_id=job.id,
        state=job.status,
    )


def _check_data(**given: Any) -> None:
    for name, data in given.items():
        if data is not None and not isinstance(data, str | os.PathLike | ChatDataset):
            kind = type(data).__name__
            raise TypeError(f"{name} must be a path or a ChatDataset, got {kind}")


def _check_seconds(**seconds: float | None) -> None:
    for name, value in seconds.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be > 0 seconds, got {value}")
