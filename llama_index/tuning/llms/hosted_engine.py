"""Tunes an LLM by a job at OpenAI, or at any server with OpenAI's protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import HostedError, JobNotFinishedError, NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.llms.evaluation import Evaluate, Peer, check_callables, check_peers
from llama_index.tuning.llms.hosted_calls import Clock
from llama_index.tuning.llms.hosted_checks import (
    check_base_llm,
    check_limits,
    check_path,
    check_seconds,
    check_texts,
)
from llama_index.tuning.llms.hosted_client import check_client, check_open, make_client
from llama_index.tuning.llms.hosted_connection import Connection
from llama_index.tuning.llms.hosted_estimate import JobEstimate, Tokenizer
from llama_index.tuning.llms.hosted_follow import SUCCEEDED, Follower
from llama_index.tuning.llms.hosted_llm import hosted_llm
from llama_index.tuning.llms.hosted_material import (
    DataLike,
    Material,
    check_data,
    read_material,
)
from llama_index.tuning.llms.hosted_options import JobOptions, Method
from llama_index.tuning.llms.hosted_report import Measuring, hosted_report
from llama_index.tuning.llms.hosted_submit import ENDED_BADLY
from llama_index.tuning.report import FinetuneReport

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

    from llama_index.tuning.collect.callbacks import OpenAIFineTuningHandler

logger = logging.getLogger(__name__)


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
        peers: what else the tuned LLM is compared with on `evaluate`'s items, by name: an LLM, or
            scores of the same items. The gate does not look at them.
        accept: `"gain"`, or `"always"` to take the tuned LLM whatever was measured.
        base_llm: with `evaluate`, what is compared with and kept; by default `base_model` at the
            same server.
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
        peers: Mapping[str, Peer] | None = None,
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
        check_data(data_path=data_path, validation_data=validation_data)
        check_callables(evaluate, {} if protect is None else protect)
        check_peers({} if peers is None else peers, evaluate, protect or {})
        if protect and evaluate is None:
            raise ValueError("protect needs evaluate too: the gate looks at a gain first")
        if base_llm is not None:
            check_base_llm(base_llm, evaluate)
        check_limits(price, max_cost, max_tokens, min_examples, tokenizer)
        check_texts(start_job_id=start_job_id, base_url=base_url, deployment=deployment)
        check_path("state_path", state_path)
        check_seconds(timeout=timeout, poll_interval=poll_interval, file_timeout=file_timeout)
        if client is not None:
            check_client(client)
        self.data_path, self.validation_data = data_path, validation_data
        self.verbose, self.validate_json = verbose, validate_json
        self.start_job_id = start_job_id
        self._server_arguments = (client, base_url, api_key)
        self.evaluate, self.protect, self.accept = evaluate, dict(protect or {}), accept
        self.peers = dict(peers or {})
        self.base_llm, self.deployment = base_llm, deployment
        self.price, self.max_cost, self.tokenizer = price, max_cost, tokenizer
        self.max_tokens, self.min_examples = max_tokens, min_examples
        self.timeout, self.poll_interval = timeout, poll_interval
        self.file_timeout, self.state_path = file_timeout, state_path
        self.show_progress, self.clock = show_progress, clock or Clock()
        self._opened: Connection | None = None
        self._read: Material | None = None
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
        return self._material().estimate

    def submit(self) -> Any:
        """Bring data and job to the server, once, and return the job without waiting for it.

        Raises:
            HostedEndedError: the server takes no new jobs.
            HostedError: the server refuses, or cannot be reached.
            ValueError: the estimate is above `max_cost`; and other misuse, before anything is sent.
        """
        connection = self._connection()
        if self._follows():
            return connection.submitter.retrieve(self._current_id())
        material = self._checked(connection)
        with connection.lock():
            job = connection.submitter.job(self.options, material.training, material.validation)
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
        connection = self._connection()
        if not self._follows():
            self._checked(connection)
        measuring = Measuring(self.evaluate, self.protect, self.peers, self.accept)
        if wait:  # a faulty evaluate fails before any cost
            measuring.before(lambda: self._base(connection))
        job = self.submit()
        follower = self._follower(connection, job)
        if wait:
            job = follower.wait()
            if self._can_answer(job):
                measuring.after(lambda: self._served(connection, job))
        seconds = round(time.perf_counter() - started, 3)
        self._report = hosted_report(
            self.options, connection.server, job, measuring,
            estimate=None if self._read is None else self._read.estimate,
            history=follower.history, seconds=seconds, needs_deployment=self._needs_deployment(),
        )  # fmt: skip
        return self._report

    def get_current_job(self) -> Any:
        """The job as it is at the server now.

        Raises:
            NotFinetunedError: there is none yet.
        """
        return self._connection().submitter.retrieve(self._current_id())

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
        connection = self._connection()
        job = self.get_current_job()
        if job.status != SUCCEEDED:
            raise _no_model(job)
        if self._keeps_base():
            return self._base(connection)
        return self._tuned(connection, job, model_kwargs)

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
        return self._connection().act("cancel", self._current_id())

    def pause(self) -> Any:
        """Hold the job; it goes on after `resume()`."""
        return self._connection().act("pause", self._current_id())

    def resume(self) -> Any:
        """Let a paused job go on."""
        return self._connection().act("resume", self._current_id())

    def events(self, limit: int = 100) -> list[Any]:
        """The job's newest events, in the order in which they happened.

        Args:
            limit: how many at most.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit must be a whole number >= 1, got {limit!r}")
        return self._connection().events(self._current_id(), limit)

    def checkpoints(self) -> list[Any]:
        """The models that the job saved on its way, the newest first."""
        return self._connection().checkpoints(self._current_id())

    def _connection(self) -> Connection:
        if self._opened is None:
            client = self._make_client(*self._server_arguments)
            connection = Connection.on(client, self._state_path(), self.file_timeout, self.clock)
            self.options.check_for(connection.server.kind)
            self._opened = connection
        return self._opened

    def _make_client(self, client: Any, base_url: str | None, api_key: str | None) -> OpenAI:
        return make_client(client, base_url, api_key)

    def _state_path(self) -> Path | None:
        if self.state_path is not None:
            return Path(self.state_path)
        if self.data_path is None or isinstance(self.data_path, ChatDataset):
            return None
        return Path(f"{Path(self.data_path)}.job.json")

    def _material(self) -> Material:
        if self.data_path is None:
            raise ValueError("data_path is needed for that; only start_job_id was given")
        if self._read is None:
            self._read = read_material(
                self.options, self.data_path, self.validation_data, validate=self.validate_json,
                min_examples=self.min_examples, price=self.price, tokenizer=self.tokenizer,
                max_tokens=self.max_tokens,
            )  # fmt: skip
        return self._read

    def _follows(self) -> bool:
        return self.start_job_id is not None and self._job_id == self.start_job_id

    def _checked(self, connection: Connection) -> Material:
        """The data, once nothing speaks against sending it."""
        material = self._material()
        known = connection.submitter.known_job(material.key)
        if known is None or known.status in ENDED_BADLY:
            check_open(connection.server, self.clock.today, new_job=True)
        estimate = material.estimate
        if self.max_cost is not None and (estimate.cost or 0.0) > self.max_cost:
            raise ValueError(f"max_cost is {self.max_cost}, the estimate is above: {estimate}")
        connection.check_state(required=self.state_path is not None)
        return material

    def _current_id(self) -> str:
        if self._job_id is None and self.data_path is not None:
            found = self._connection().state.run(self._material().key).get("job_id")
            self._job_id = found if isinstance(found, str) else None
        if self._job_id is None:
            raise NotFinetunedError("call finetune() or submit() first; there is no job yet")
        return self._job_id

    def _follower(self, connection: Connection, job: Any) -> Follower:
        def note(changed: Any) -> None:
            if self._read is not None and self._job_id != self.start_job_id:
                connection.submitter.note(self._read.key, changed)

        return Follower(
            connection.calls, job.id, timeout=self.timeout, poll_interval=self.poll_interval,
            new=job.id != self.start_job_id, on_status=note, show_progress=self.show_progress,
            level=logging.INFO if self.verbose else logging.DEBUG,
        )  # fmt: skip

    def _needs_deployment(self) -> bool:
        return self._connection().server.kind == "azure" and self.deployment is None

    def _can_answer(self, job: Any) -> bool:
        return bool(self.deployment or job.fine_tuned_model) and not self._needs_deployment()

    def _base(self, connection: Connection) -> LLM:
        if self.base_llm is not None:
            return self.base_llm
        if connection.server.kind == "azure":
            raise ValueError(
                "base_llm is needed on Azure: an LLM on a deployment of the base model, which the "
                "tuned one is compared with"
            )
        return hosted_llm(connection.calls.client, self.options.model)

    def _tuned(self, connection: Connection, job: Any, model_kwargs: Mapping[str, Any]) -> LLM:
        check_open(connection.server, self.clock.today, new_job=False)
        given = dict(model_kwargs)
        deployment = given.pop("deployment", None) or given.pop("engine", None) or self.deployment
        model = given.pop("model", None) or job.fine_tuned_model or deployment
        if not model:
            raise HostedError(
                f"job {job.id} succeeded and names no model: this server wants it deployed first "
                "(checkpoints() lists what was saved); then pass its name as model="
            )
        return hosted_llm(
            connection.calls.client, model,
            base_model=self.options.model, deployment=deployment, **given,
        )  # fmt: skip

    def _served(self, connection: Connection, job: Any) -> LLM:
        """The tuned LLM once it answers: right after the job a server may not know it yet."""
        model = self.deployment or job.fine_tuned_model
        connection.submitter.wait_until_served(model, self.file_timeout)
        return self._tuned(connection, job, {})


def _no_model(job: Any) -> Exception:
    if job.status in ENDED_BADLY:
        return HostedError(f"job {job.id} has status {job.status}: there is no tuned model")
    return JobNotFinishedError(
        f"job {job.id} is still {job.status}; finetune() waits for it",
        job_id=job.id,
        state=job.status,
    )
