"""Tunes a causal language model on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._running import is_main_process, process_count
from llama_index.tuning.artifacts import CONFIG, check_writable, locked
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import ArtifactError, NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.processes import join_processes, on_main
from llama_index.tuning.llms.evaluation import (
    Evaluate,
    Peer,
    Scores,
    caller_scores,
    check_callables,
    check_peers,
    peer_scores,
)
from llama_index.tuning.llms.local.measure import log_likelihoods, preferences
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.local.plan import (
    LIBRARIES,
    Plan,
    check_libraries,
    check_trainer_callbacks,
    likelihood_of,
    make_plan,
    parts_of,
    write_report,
)
from llama_index.tuning.llms.local.preflight import PreflightReport, check_room
from llama_index.tuning.llms.local.train import Trained, check_finite, run_fingerprint, train
from llama_index.tuning.llms.serving.loading import (
    Source,
    check_vocabulary,
    load_model,
    load_tokenizer,
    model_identity,
)
from llama_index.tuning.llms.serving.saved import LoadedModel, load_llm, read_llm_config, save_llm
from llama_index.tuning.llms.serving.tool_parsers import ToolParser
from llama_index.tuning.report import FinetuneReport, installed_versions

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

_DECIDE_NO_WEIGHT = (
    *("resume", "merge", "held_out", "save_steps", "device"),
    "template_arguments",  # those in force do, see `_run_parts`
)


class HuggingFaceFinetuneEngine(BaseLLMFinetuneEngine):
    """Tunes a causal language model on this machine: LoRA or all weights, SFT or DPO.

    Only the assistant's words are learnt, no conversation is ever cut, and a run that was killed
    goes on where its last whole checkpoint is, to the same weights. Base and tuned model are
    measured on what was not trained on.

    Args:
        dataset: conversations; for DPO each with a `rejected` answer.
        model_id: a model with a chat template: a folder, or a name of the hub.
        model_output_path: folder of the tuned LLM; checkpoints lie beside it while it trains.
        val_dataset: conversations to measure on; without it, and without `evaluate`, a share of
            `dataset` is held out.
        options: how to train.
        evaluate: gives an LLM a score between 0 and 1 for each of your held-out items; the gate
            looks at these. Without it, it looks at the log-likelihood of held-out conversations.
        protect: abilities that must not be lost, by name: each gives an LLM a score between 0
            and 1 for each of its items, and the gate refuses a model that loses one.
        peers: what else the tuned LLM is compared with on `evaluate`'s items, by name: an LLM,
            such as a teacher, or scores of the same items, such as a baseline's. The gate does
            not look at them.
        tool_parser: how the model writes tool calls; None: the parser that understands what its
            chat template writes. Scoring and the tuned LLM use it.
        accept: `"gain"`, or `"always"` to take the tuned model whatever was measured.
        show_progress: show bars.
        callbacks: `TrainerCallback`s of transformers.

    Example:
        engine = HuggingFaceFinetuneEngine(dataset, "Qwen/Qwen3-0.6B", evaluate=accuracy)
        print(engine.preflight())
        report = engine.finetune()
        llm = engine.get_finetuned_model()
    """

    def __init__(
        self,
        dataset: ChatDataset,
        model_id: str | os.PathLike[str],
        *,
        model_output_path: str | os.PathLike[str] = "exp_finetune",
        val_dataset: ChatDataset | None = None,
        options: HuggingFaceOptions | None = None,
        evaluate: Evaluate | None = None,
        protect: Mapping[str, Evaluate] | None = None,
        peers: Mapping[str, Peer] | None = None,
        tool_parser: ToolParser | None = None,
        accept: Accept = "gain",
        show_progress: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        check_accept(accept)
        for name, value in (("dataset", dataset), ("val_dataset", val_dataset)):
            if not isinstance(value, ChatDataset) and not (name == "val_dataset" and value is None):
                raise TypeError(f"{name} must be a ChatDataset, got {type(value).__name__}")
        if options is not None and not isinstance(options, HuggingFaceOptions):
            raise TypeError(f"options must be HuggingFaceOptions, got {type(options).__name__}")
        if not isinstance(model_id, str | os.PathLike) or not os.fspath(model_id):
            raise TypeError(f"model_id must be a folder or a name of the hub, got {model_id!r}")
        if not isinstance(model_output_path, str | os.PathLike) or not os.fspath(model_output_path):
            raise TypeError(f"model_output_path must be a path, got {model_output_path!r}")
        if not isinstance(tool_parser, ToolParser | None):
            raise TypeError(f"tool_parser must be a ToolParser, got {tool_parser!r}")
        check_callables(evaluate, {} if protect is None else protect)
        check_peers({} if peers is None else peers, evaluate, protect or {})
        self.dataset, self.val_dataset, self.model_id = dataset, val_dataset, model_id
        self.model_output_path = Path(model_output_path)
        self.options = options or HuggingFaceOptions()
        self.evaluate, self.protect = evaluate, dict(protect or {})
        self.peers, self.tool_parser = dict(peers or {}), tool_parser
        self.accept, self.show_progress, self.callbacks = accept, show_progress, list(callbacks)
        self._report: FinetuneReport | None = None
        self._source: Source | None = None
        self._template_arguments: dict[str, Any] = {}

    def preflight(self) -> PreflightReport:
        """What the run will do and need, from tokenizer and configuration alone, in seconds.

        Raises:
            DatasetError: naming each conversation that cannot be learnt from.
            TemplateError: the model has no chat template.
            BaseModelError: the model is not there, or is none.
        """
        return self._plan().preflight

    def finetune(self) -> FinetuneReport:
        """Check, measure the base, train, measure again, decide and save.

        Raises:
            DatasetError, TemplateError, BaseModelError: see `preflight`.
            ArtifactError: something else lies at `model_output_path`, or another run writes there.
            TuningError: the training diverged.
        """
        check_writable(self.model_output_path)
        started = time.perf_counter()
        plan = self._plan()
        check_room(plan.preflight, self.model_output_path)
        join_processes(self.options.device)
        with self._locked():
            model = self._load(plan)
            identity = model_identity(plan.source, model)
            run = run_fingerprint(self._run_parts(plan, identity))
            before = on_main(lambda: self._scores(model, plan))
            peers = on_main(lambda: peer_scores(self.peers, self.evaluate, before))
            measured = time.perf_counter()
            trained = self._finished(run) or self._train(model, plan, run)
            ready = time.perf_counter()
            after = on_main(lambda: self._scores(trained.model, plan))
            seconds = {
                "measuring": measured - started + time.perf_counter() - ready,
                "training": ready - measured,
            }
            report = write_report(
                plan,
                trained,
                before,
                after,
                peers,
                options=self.options,
                protected=self.protect,
                accept=self.accept,
                seconds=seconds,
            )
            on_main(lambda: self._save(plan, trained, identity, run, report))
        self._report, self._source = report, plan.source
        self._template_arguments = plan.template_arguments
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> LLM:
        """The tuned LLM, or the base where no gain was shown.

        Args:
            **model_kwargs: arguments of `TunedHuggingFaceLLM.load`, such as `max_new_tokens`,
                `merged`, `device`, `tool_parser`.

        Raises:
            NotFinetunedError: `finetune()` did not run.
        """
        from llama_index.tuning.llms.serving.model import TunedHuggingFaceLLM

        if self._report is None or self._source is None:
            raise NotFinetunedError("call finetune() first; there is no tuned LLM yet")
        options = self.options
        given = {
            "device": options.device,
            "quantize": options.quantize,
            "trust_remote_code": options.trust_remote_code,
            "tool_parser": self.tool_parser,
            **model_kwargs,
        }
        if self._report.accepted:
            return TunedHuggingFaceLLM.load(self.model_output_path, **given)
        logger.warning(
            'the base is kept (%s): %s; accept="always" would override it',
            self._source.name,
            self._report.reason,
        )
        how = {key: given.pop(key) for key in ("device", "quantize", "trust_remote_code")}
        for key in ("merged", "base_model"):  # these are about the adapter that is not used
            given.pop(key, None)
        tokenizer = load_tokenizer(self._source, trust_remote_code=how["trust_remote_code"])
        model = load_model(self._source, **how)
        given.setdefault("template_arguments", self._template_arguments)
        return TunedHuggingFaceLLM(model.eval(), tokenizer, model_name=self._source.name, **given)

    def _plan(self) -> Plan:
        check_libraries(self.options)
        check_trainer_callbacks(self.callbacks)
        scored = self.evaluate is not None
        train_set, measured = parts_of(self.dataset, self.val_dataset, self.options, scored=scored)
        return make_plan(
            self.model_id,
            train_set,
            measured,
            self.options,
            self.model_output_path,
            self.tool_parser,
        )

    def _load(self, plan: Plan) -> Any:
        options = self.options
        model = load_model(
            plan.source,
            device=options.device,
            quantize=options.quantize,
            trust_remote_code=options.trust_remote_code,
            train_all=options.weights == "full",
            flash_attention=options.packing,
        )
        check_vocabulary(plan.tokenizer, model, plan.source.name)
        return model

    def _scores(self, model: Any, plan: Plan) -> Scores:
        """Of one model: likelihood or preference where conversations are held out, and the
        caller's scores."""
        from llama_index.tuning.llms.serving.model import TunedHuggingFaceLLM

        found: Scores = {}
        if plan.measured_chats is not None and plan.measured_chats.rows:
            measure = preferences if self.options.method == "dpo" else log_likelihoods
            found[likelihood_of(self.options)] = measure(
                model,
                plan.measured_chats.rows,
                pad_id=plan.tokenizer.pad_token_id,
                batch_size=self.options.batch_size,
            )
        if self.evaluate is not None or self.protect:
            loaded = LoadedModel(model, plan.tokenizer, plan.source.name, plan.template_arguments)
            llm = TunedHuggingFaceLLM.of(loaded, tool_parser=plan.tool_parser)
            found |= caller_scores(llm, self.evaluate, self.protect)
        return found

    def _train(self, model: Any, plan: Plan, run: str) -> Trained:
        trained = train(
            model,
            plan.tokenizer,
            plan.chats.rows,
            self._checkpoints / run,
            self.options,
            max_length=plan.max_length,
            show_progress=self.show_progress,
            callbacks=self.callbacks,
        )
        check_finite(trained.model)
        return trained

    def _finished(self, run: str) -> Trained | None:
        """The tuned model of this very run, where it was saved before."""
        if not self.options.resume or not (self.model_output_path / CONFIG).is_file():
            return None
        try:
            config = read_llm_config(self.model_output_path)
        except ArtifactError as exc:
            logger.warning("%s; the run is done again", exc)
            return None
        if config["run"] != run or (self.options.merge and not config["merged"]):
            return None
        loaded = load_llm(
            self.model_output_path,
            base_model=self.model_id,
            device=self.options.device,
            quantize=self.options.quantize,
            trust_remote_code=self.options.trust_remote_code,
        )
        report = FinetuneReport.from_json(self.model_output_path / "report.json")
        note = "this run had been finished and saved before; it was measured again, not trained"
        return Trained(loaded.model, report.history, [note])

    def _run_parts(self, plan: Plan, identity: str) -> dict[str, Any]:
        """All that decides the weights."""
        options = {k: v for k, v in asdict(self.options).items() if k not in _DECIDE_NO_WEIGHT}
        return {
            "data": plan.train.fingerprint(),
            "options": options,
            "model": identity,
            "max_length": plan.max_length,
            "processes": process_count(),
            "template": plan.tokenizer.chat_template,
            "template_arguments": plan.template_arguments,
            "versions": installed_versions(*LIBRARIES),
        }

    def _save(
        self, plan: Plan, trained: Trained, identity: str, run: str, report: FinetuneReport
    ) -> None:
        """Write the artifact; only then are the checkpoints of this run no longer needed."""
        save_llm(
            self.model_output_path,
            trained.model,
            plan.tokenizer,
            plan.source,
            identity=identity,
            config={
                "run": run,
                "merged": self.options.merge,
                "template_arguments": plan.template_arguments,
                "accepted": report.accepted,
                "reason": report.reason,
                "options": report.options,
                "data": report.data["fingerprint"],
                "versions": report.versions,
            },
            report=report.to_dict(),
            merge=self.options.merge,
        )
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    @property
    def _checkpoints(self) -> Path:
        path = self.model_output_path
        return path.with_name(f"{path.name}.checkpoints")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One run at a time writes to an output folder."""
        if not is_main_process():
            yield
            return
        path = self.model_output_path.absolute()
        busy = ArtifactError(f"{path} is being written by another run; choose another folder")
        with locked(path.with_name(f".{path.name}.lock"), busy):
            yield
