"""Tunes an LLM by a job at OpenAI, or at any server with OpenAI's protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llama_index.tuning._checks import output_path, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning.artifacts import check_writable, write_component
from llama_index.tuning.base import (
    OVERRIDE,
    BaseLLMFinetuneEngine,
    Clock as Seconds,
    FinetuneEngine,
)
from llama_index.tuning.errors import (
    HostedError,
    JobNotFinishedError,
    NotFinetunedError,
    TuningError,
)
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.llms.evaluation import (
    Evaluate,
    Peer,
    Scores,
    caller_scores,
    check_callables,
    check_peers,
    peer_scores,
)
from llama_index.tuning.llms.hosted.calls import Calls, Clock
from llama_index.tuning.llms.hosted.client import check_client, check_open, make_client
from llama_index.tuning.llms.hosted.files import (
    DataLike,
    JobEstimate,
    RunFiles,
    Tokenizer,
    check_data,
    estimate_job,
    read_files,
)
from llama_index.tuning.llms.hosted.follow import SUCCEEDED, Follower, wait_until_served
from llama_index.tuning.llms.hosted.model import hosted_llm
from llama_index.tuning.llms.hosted.options import (
    JobOptions,
    Method,
    check_positive,
    check_texts,
    check_whole,
)
from llama_index.tuning.llms.hosted.report import hosted_report
from llama_index.tuning.llms.hosted.submit import (
    ENDED_BADLY,
    cancel_job,
    find_job,
    retrieve_job,
    submit_job,
)
from llama_index.tuning.report import FinetuneReport

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

    from llama_index.tuning.collect.callbacks import OpenAIFineTuningHandler

logger = logging.getLogger(__name__)

KIND = "hosted_llm"


class OpenAIFinetuneEngine(FinetuneEngine, BaseLLMFinetuneEngine):
    """Tunes an LLM by a hosted job, supervised or by preferences.

    The server is OpenAI's, Azure's, or any other with the same protocol. Each run makes one upload
    and one job, however often it is interrupted and started again: data and options decide which
    run it is, and the server's own lists find it again. For another job on the same data change an
    option, such as `seed` or `suffix`.

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
        extra_body: fields that only this server knows.
        evaluate: gives an LLM a score between 0 and 1 for each of your held-out items; makes base
            against tuned measured and gated. Without it nothing is measured.
        protect: abilities that must not be lost, by name: each gives an LLM a score between 0
            and 1 for each item that is to stay as it was; the gate refuses a loss.
        peers: what else the tuned LLM is compared with on `evaluate`'s items, by name: an LLM, or
            scores of the same items. The gate does not look at them.
        accept: `"gain"`, or `"always"` to take the tuned LLM whatever was measured.
        model_output_path: folder for the report and the tuned model's name, which stays at the
            server; nothing is written by default.
        base_llm: with `evaluate`, what is compared with and kept; by default `base_model` at the
            same server.
        deployment: Azure's name for the running tuned model.
        min_examples: fewer are an error; OpenAI asks for 10.
        timeout: seconds to wait for the job; None: for ever.
        poll_interval: seconds between two looks at the job.
        show_progress: show a bar.
        clock: time and date, for tests; its `today` decides which services are closed.

    Example:
        >>> engine = OpenAIFinetuneEngine(  # doctest: +SKIP
        ...     "meta-llama/Meta-Llama-3.1-8B-Instruct", "train.jsonl",
        ...     base_url="https://api.tokenfactory.nebius.com/v1", api_key=key,
        ... )
        >>> print(engine.estimate(price=0.4))  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> llm = engine.get_finetuned_model()  # doctest: +SKIP
    """

    kept = "base LLM"

    @plain_arguments
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
        extra_body: Mapping[str, Any] | None = None,
        evaluate: Evaluate | None = None,
        protect: Mapping[str, Evaluate] | None = None,
        peers: Mapping[str, Peer] | None = None,
        accept: Accept = "gain",
        model_output_path: PathLike | None = None,
        base_llm: LLM | None = None,
        deployment: str | None = None,
        min_examples: int = 10,
        timeout: float | None = 86_400.0,
        poll_interval: float = 15.0,
        show_progress: bool = False,
        clock: Clock | None = None,
    ) -> None:
        check_accept(accept)
        self.options = JobOptions(
            model=base_model, method=method, hyperparameters=hyperparameters or {}, suffix=suffix,
            seed=seed, extra_body=extra_body or {},
        )  # fmt: skip
        if data_path is None and start_job_id is None:
            raise ValueError("data_path is needed, or start_job_id of a job that exists")
        check_data(data_path=data_path, validation_data=validation_data)
        check_callables(evaluate, {} if protect is None else protect)
        check_peers({} if peers is None else peers, evaluate, protect or {})
        if evaluate is None and (protect or base_llm is not None):
            name = "protect" if protect else "base_llm"
            raise ValueError(f"{name} needs evaluate: without it nothing is compared")
        if base_llm is not None:
            _check_llm(base_llm)
        check_texts(start_job_id=start_job_id, base_url=base_url, deployment=deployment)
        check_whole("min_examples", min_examples, 1)
        check_positive(poll_interval=poll_interval)
        if timeout is not None:
            check_positive(timeout=timeout)
        if client is not None:
            check_client(client, base_url, api_key)
        self.data_path, self.validation_data = data_path, validation_data
        self.verbose, self.validate_json = verbose, validate_json
        self.start_job_id = start_job_id
        self._server_arguments = (client, base_url, api_key)
        self.evaluate, self.protect, self.peers = evaluate, dict(protect or {}), dict(peers or {})
        self.accept, self.base_llm, self.deployment = accept, base_llm, deployment
        self.min_examples, self.timeout, self.poll_interval = min_examples, timeout, poll_interval
        self.show_progress, self.clock = show_progress, clock or Clock()
        self.model_output_path = output_path(model_output_path)
        self._calls: Calls | None = None
        self._files: RunFiles | None = None
        self._job_id = start_job_id

    @classmethod
    @plain_arguments
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

    def estimate(
        self, *, price: float | None = None, tokenizer: Tokenizer | None = None
    ) -> JobEstimate:
        """Tokens and, given a price, cost; the data is checked, and nothing is sent.

        Args:
            price: of a million trained tokens, in your currency.
            tokenizer: text → tokens; LlamaIndex's own (cl100k) by default.

        Raises:
            DatasetError: the data cannot be learnt from.
        """
        if price is not None:
            check_positive(price=price)
        epochs = self.options.hyperparameters.get("n_epochs", "auto")
        return estimate_job(self._checked_files().training, epochs, price, tokenizer)

    def submit(self) -> Any:
        """Bring data and job to the server, once, and return the job without waiting for it.

        Raises:
            HostedEndedError: the server takes no new jobs.
            HostedError: the server refuses, or cannot be reached.
            DatasetError: the data cannot be learnt from; nothing is sent.
        """
        if self.start_job_id is not None:
            return retrieve_job(self._server(), self.start_job_id)
        files = self._checked_files()
        job = submit_job(self._server(), self.options, files)
        self._job_id = job.id
        return job

    def finetune(self) -> FinetuneReport:
        """Submit, wait for the end, measure and decide; called again, it goes on where it was.

        Raises:
            JobError: the job failed or was cancelled.
            JobNotFinishedError: it still runs after `timeout`.
            HostedEndedError, HostedError, DatasetError: see `submit`.
            ArtifactError: something else lies at `model_output_path`, or another run writes there.
        """
        if self.model_output_path is not None:
            check_writable(self.model_output_path)
        self._check()
        with self._output_held():
            report = self._tune(Seconds())
            if self.model_output_path is not None:
                self._save(self.model_output_path, report)
        self.report, self._said_kept = report, False
        logger.info("%s", report.reason)
        return report

    def _check(self) -> None:
        if self.start_job_id is None:
            self._checked_files()

    def _tune(self, clock: Seconds) -> FinetuneReport:
        """The job, and the verdict: a job of which nothing is measured is accepted all the same."""
        started = time.perf_counter()
        calls = self._server()
        before: Scores = {}
        after: Scores = {}
        peers: Scores = {}
        if self.evaluate is not None:  # a faulty one fails before any cost
            if self._existing() is None:
                check_open(calls.server, self.clock.today, new_job=True)
            before = caller_scores(self._base(), self.evaluate, self.protect)
            peers = peer_scores(self.peers, self.evaluate, before)
        job_id = self.submit().id
        follower = Follower(
            calls, job_id, self.timeout, self.poll_interval, new=job_id != self.start_job_id,
            show_progress=self.show_progress, level=logging.INFO if self.verbose else logging.DEBUG,
        )  # fmt: skip
        job = follower.wait()
        served = self.deployment or (job.fine_tuned_model if calls.server.kind != "azure" else None)
        if served and before:
            wait_until_served(calls, served)
            after = caller_scores(self._llm_of(job), self.evaluate, self.protect)
        return hosted_report(
            self.options, calls.server, job, before, after, peers, accept=self.accept,
            deployment=self.deployment, history=follower.history,
            seconds=time.perf_counter() - started,
        )  # fmt: skip

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        names = {name: report.data.get(name) for name in ("tuned_model", "job", "server")}
        details = {"base_model": self.options.model, "deployment": self.deployment, **names}
        card = (
            f"# {report.data.get('tuned_model') or 'A tuned model'}\n\n{report.reason}\n\n"
            "The model lies at its server; `report.json` holds what was measured.\n"
        )
        write_component(folder, KIND, details, {}, card)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, token: str | None = None, **arguments: Any
    ) -> NoReturn:
        """Refused: the tuned model lies at its server, there are no weights to upload.

        Raises:
            TuningError: always.
        """
        raise TuningError(
            f"nothing is uploaded to {repo_id!r}: the tuned model lies at its server, which does "
            "not hand out weights"
        )

    def get_current_job(self) -> Any:
        """The job as it is at the server now.

        Raises:
            NotFinetunedError: there is none yet.
        """
        return retrieve_job(self._server(), self._current_id())

    def cancel(self) -> Any:
        """End the job."""
        return cancel_job(self._server(), self._current_id())

    def get_finetuned_model(self, **model_kwargs: Any) -> LLM:
        """The tuned LLM, or the base if `evaluate` showed no gain.

        Args:
            **model_kwargs: arguments of the LLM's class (`temperature`, `context_window`, …);
                `model` names another model, such as a checkpoint's; `deployment` is Azure's.

        Raises:
            NotFinetunedError: there is no job yet, or `evaluate` did not measure it yet.
            JobNotFinishedError: it still runs.
            HostedError: it failed, was cancelled, or names no model.
            HostedEndedError: the server has shut its tuned models down.
        """
        job = self.get_current_job()
        if job.status in ENDED_BADLY:
            raise HostedError(f"job {job.id} has status {job.status}: there is no tuned model")
        if job.status != SUCCEEDED:
            said = f"job {job.id} is still {job.status}; finetune() waits for it"
            raise JobNotFinishedError(said, job_id=job.id, state=job.status)
        return self._base(**model_kwargs) if self._keeps_base() else self._llm_of(job, model_kwargs)

    def _keeps_base(self) -> bool:
        """What the gate decided; without `evaluate` there was nothing to decide on."""
        measured = self.report is not None and bool(self.report.gains)
        if self.evaluate is not None and self.accept == "gain" and not measured:
            raise NotFinetunedError(
                "evaluate= was given and nothing is measured yet: call finetune(), on Azure with "
                'deployment= of the tuned model; accept="always" takes the tuned LLM unmeasured'
            )
        if self.report is None or not measured:
            logger.warning("the tuned LLM is used unmeasured")
            return False
        if not self.report.accepted and not self._said_kept:
            logger.warning("the %s is kept: %s; %s", self.kept, self.report.reason, OVERRIDE)
            self._said_kept = True
        return not self.report.accepted

    def _server(self) -> Calls:
        if self._calls is None:
            client, base_url, api_key = self._server_arguments
            self._calls = Calls(client or self._make_client(base_url, api_key), self.clock)
        return self._calls

    def _make_client(self, base_url: str | None, api_key: str | None) -> OpenAI:
        return make_client(base_url, api_key)

    def _checked_files(self) -> RunFiles:
        if self.data_path is None:
            raise ValueError("data_path is needed for that; only start_job_id was given")
        if self._files is None:
            self._files = read_files(
                self.options, self.data_path, self.validation_data,
                validate=self.validate_json, min_examples=self.min_examples,
            )  # fmt: skip
        return self._files

    def _existing(self) -> Any | None:
        """The run's job at the server, if there is one already."""
        if self._job_id is not None:
            return retrieve_job(self._server(), self._job_id)
        return find_job(self._server(), self.options, self._checked_files())

    def _current_id(self) -> str:
        if self._job_id is None and (job := self._existing()) is not None:
            self._job_id = job.id
        if self._job_id is None:
            raise NotFinetunedError("call finetune() or submit() first; there is no job yet")
        return self._job_id

    def _base(self, **model_kwargs: Any) -> LLM:
        """`base_llm` as it was given; else the base model, with the same arguments."""
        if self.base_llm is not None:
            return self.base_llm
        if self._server().server.kind == "azure":
            raise ValueError(
                "base_llm is needed on Azure: an LLM on a deployment of the base model, which the "
                "tuned one is compared with"
            )
        given = {k: v for k, v in model_kwargs.items() if k not in ("model", "deployment")}
        return hosted_llm(self._server().client, self.options.model, **given)

    def _tuned(self, **model_kwargs: Any) -> LLM:
        return self._llm_of(self.get_current_job(), model_kwargs)

    def _llm_of(self, job: Any, model_kwargs: Mapping[str, Any] | None = None) -> LLM:
        calls, given = self._server(), dict(model_kwargs or {})
        check_open(calls.server, self.clock.today, new_job=False)
        deployment = given.pop("deployment", None) or self.deployment
        model = given.pop("model", None) or job.fine_tuned_model or deployment
        if not model:
            raise HostedError(
                f"job {job.id} succeeded and names no model: this server wants it deployed first; "
                "then pass its name as model="
            )
        return hosted_llm(
            calls.client, model, base_model=self.options.model, deployment=deployment, **given
        )


def _check_llm(base_llm: Any) -> None:
    from llama_index.core.llms import LLM

    if not isinstance(base_llm, LLM):
        raise TypeError(f"base_llm must be an LLM of LlamaIndex, got {type(base_llm).__name__}")
