"""Tunes a causal language model on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import (
    check_options,
    folder_path,
    items_of,
    of_type,
    output_path,
    plain_arguments,
)
from llama_index.tuning._running import process_count
from llama_index.tuning.artifacts import CANDIDATE, CONFIG, KEPT_BASE, REPORT, read_config
from llama_index.tuning.base import BaseLLMFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.processes import join_processes, on_main
from llama_index.tuning.hf.tracking import named_trackers, trainer_callbacks
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
    likelihood_of,
    make_plan,
    parts_of,
    write_report,
)
from llama_index.tuning.llms.local.preflight import PreflightReport, check_room
from llama_index.tuning.llms.local.train import Trained, check_finite, run_fingerprint, train
from llama_index.tuning.llms.serving.loading import (
    check_vocabulary,
    load_model,
    load_tokenizer,
    model_identity,
)
from llama_index.tuning.llms.serving.saved import (
    KIND,
    LoadedModel,
    load_llm,
    read_llm_config,
    write_llm,
)
from llama_index.tuning.llms.serving.tool_parsers import ToolParser
from llama_index.tuning.report import FinetuneReport, installed_versions

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

_DECIDE_NO_WEIGHT = (
    *("resume", "merge", "held_out", "save_steps", "device"),
    "template_arguments",  # those in force do, see `_run_parts`
)


class HuggingFaceFinetuneEngine(FinetuneEngine, BaseLLMFinetuneEngine):
    """Tunes a causal language model on this machine: LoRA or all weights, SFT or DPO.

    Only the assistant's words are learnt, no conversation is ever cut, and a run that was killed
    goes on where its last whole checkpoint is, to the same weights. Base and tuned model are
    measured on what was not trained on.

    Args:
        dataset: conversations; for DPO each with a `rejected` answer.
        model_id: a model with a chat template: a folder, or a name of the hub.
        model_output_path: folder of the tuned LLM; checkpoints lie beside it while it trains.
            `None` writes nothing, and a run that was killed starts anew.
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
        report_to: trackers of transformers that log the training, such as `"tensorboard"` (its
            files lie beside the output folder), `"mlflow"` or `"wandb"`.

    Example:
        engine = HuggingFaceFinetuneEngine(dataset, "Qwen/Qwen3-0.6B", evaluate=accuracy)
        print(engine.preflight())
        report = engine.finetune()
        llm = engine.get_finetuned_model()
    """

    kept = "base LLM"
    libraries = LIBRARIES

    @plain_arguments
    def __init__(
        self,
        dataset: ChatDataset,
        model_id: str | os.PathLike[str],
        *,
        model_output_path: str | os.PathLike[str] | None = "tuned_llm",
        val_dataset: ChatDataset | None = None,
        options: HuggingFaceOptions | None = None,
        evaluate: Evaluate | None = None,
        protect: Mapping[str, Evaluate] | None = None,
        peers: Mapping[str, Peer] | None = None,
        tool_parser: ToolParser | None = None,
        accept: Accept = "gain",
        show_progress: bool = False,
        callbacks: Sequence[Any] = (),
        report_to: str | Sequence[str] = (),
    ) -> None:
        check_accept(accept)
        of_type("dataset", dataset, ChatDataset, "a ChatDataset")
        if val_dataset is not None:
            of_type("val_dataset", val_dataset, ChatDataset, "a ChatDataset")
        if not isinstance(model_id, str | os.PathLike) or not os.fspath(model_id):
            raise TypeError(f"model_id must be a folder or a name of the hub, got {model_id!r}")
        folder_path("model_id", model_id)
        if not isinstance(tool_parser, ToolParser | None):
            raise TypeError(f"tool_parser must be a ToolParser, got {tool_parser!r}")
        check_callables(evaluate, {} if protect is None else protect)
        check_peers({} if peers is None else peers, evaluate, protect or {})
        self.dataset, self.val_dataset, self.model_id = dataset, val_dataset, model_id
        self.model_output_path = output_path(model_output_path)
        self.options = check_options(options, HuggingFaceOptions)
        self.evaluate, self.protect = evaluate, dict(protect or {})
        self.peers, self.tool_parser = dict(peers or {}), tool_parser
        self.accept, self.show_progress, self.callbacks = (
            accept,
            show_progress,
            list(items_of("callbacks", callbacks, "callbacks")),
        )
        self.report_to = named_trackers(report_to)
        self._trained: Trained | None = None

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
        report = super().finetune()
        on_main(lambda: None)  # the others wait until it is written
        self._clear()
        return report

    def _check(self) -> None:
        self._planned = plan = self._plan()
        if self.model_output_path is not None:
            check_room(plan.preflight, self.model_output_path)
        join_processes(self.options.device)

    def _tune(self, clock: Clock) -> FinetuneReport:
        plan = self._planned
        with clock.step("measuring"):
            model = self._load(plan)
            self._identity = model_identity(plan.source, model)
            self._run = run_fingerprint(self._run_parts(plan, self._identity))
            before = on_main(lambda: self._scores(model, plan))
            peers = on_main(lambda: peer_scores(self.peers, self.evaluate, before))
        with clock.step("training"):
            trained = self._trained_before(self._run) or self._train(model, plan, self._run)
        with clock.step("measuring"):
            after = on_main(lambda: self._scores(trained.model, plan))
        self._trained = trained
        return write_report(
            plan, trained, before, after, peers, options=self.options, protected=self.protect
        )

    def _tuned(self, **model_kwargs: Any) -> LLM:
        """Takes arguments of `TunedHuggingFaceLLM.load`: `max_new_tokens`, `merged`, `device` …"""
        from llama_index.tuning.llms.serving.model import TunedHuggingFaceLLM

        if self.model_output_path is not None:
            given = {**self._how(), "tool_parser": self.tool_parser, **model_kwargs}
            return TunedHuggingFaceLLM.load(self._own(self.model_output_path), **given)
        assert self._trained is not None
        plan = self._planned
        if model_kwargs.pop("merged", False):
            raise ArtifactError("merged weights are only in a folder; give a model_output_path")
        model_kwargs.pop("base_model", None)
        _check_in_place(model_kwargs, self._how())
        model_kwargs.setdefault("tool_parser", self.tool_parser)
        loaded = LoadedModel(
            self._trained.model.eval(), plan.tokenizer, plan.source.name, plan.template_arguments
        )
        return TunedHuggingFaceLLM.of(loaded, **model_kwargs)

    def _base(self, **model_kwargs: Any) -> LLM:
        """Takes the same; those that are about the adapter have no effect."""
        from llama_index.tuning.llms.serving.model import TunedHuggingFaceLLM

        plan = self._planned
        given = {**self._how(), "tool_parser": self.tool_parser, **model_kwargs}
        how = {key: given.pop(key) for key in self._how()}
        for key in ("merged", "base_model"):  # these are about the adapter that is not used
            given.pop(key, None)
        tokenizer = load_tokenizer(plan.source, trust_remote_code=how["trust_remote_code"])
        model = load_model(plan.source, **how)
        given.setdefault("template_arguments", plan.template_arguments)
        return TunedHuggingFaceLLM(model.eval(), tokenizer, model_name=plan.source.name, **given)

    def _how(self) -> dict[str, Any]:
        """How models are loaded, here and when they serve."""
        options = self.options
        return {
            "device": options.device,
            "quantize": options.quantize,
            "trust_remote_code": options.trust_remote_code,
        }

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        plan = self._planned
        if self._trained is None:  # another copy of what lies in the output folder
            assert self.model_output_path is not None
            path = self.model_output_path
            source = path if report.accepted else path / CANDIDATE
            shutil.copytree(self._own(source), folder, dirs_exist_ok=True)
            return
        write_llm(
            folder,
            self._trained.model,
            plan.tokenizer,
            plan.source,
            identity=self._identity,
            config={
                "run": self._run,
                "merged": self.options.merge,
                "template_arguments": plan.template_arguments,
                "accepted": report.accepted,
                "reason": report.reason,
                "options": report.options,
                "data": report.data["fingerprint"],
                "versions": report.versions,
            },
            reason=report.reason,
            merge=self.options.merge,
        )

    def _own(self, folder: Path) -> Path:
        """The folder, if no other run has replaced what this one wrote there."""
        if read_config(folder, KIND, KEPT_BASE).get("run") != self._run:
            raise ArtifactError(
                f"{folder} holds what another run wrote there since: two engines need a "
                "model_output_path each"
            )
        return folder

    def _clear(self) -> None:
        """Once it is written, neither checkpoints nor the model in memory are needed."""
        if self.model_output_path is None:
            return
        self._trained = None
        on_main(lambda: _remove_runs(self._checkpoints_beside()))

    def _plan(self) -> Plan:
        check_libraries(self.options)
        self._callbacks = trainer_callbacks(self.callbacks, self.report_to, self.model_output_path)
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
        """Of one model: likelihood or preference if conversations are held out, and the
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
        if self.model_output_path is not None:
            return self._train_in(self._checkpoints_beside() / run, model, plan)
        made = on_main(lambda: tempfile.mkdtemp(prefix="tuned_llm."))
        try:
            return self._train_in(Path(made) / run, model, plan)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _train_in(self, checkpoints: Path, model: Any, plan: Plan) -> Trained:
        trained = train(
            model,
            plan.tokenizer,
            plan.chats.rows,
            checkpoints,
            self.options,
            max_length=plan.max_length,
            show_progress=self.show_progress,
            callbacks=self._callbacks,
        )
        check_finite(trained.model)
        return trained

    def _trained_before(self, run: str) -> Trained | None:
        """The tuned model of this very run, if it was saved before, accepted or refused."""
        path = self.model_output_path
        if path is None or not self.options.resume:
            return None
        folder = next((f for f in (path / CANDIDATE, path) if (f / CONFIG).is_file()), None)
        if folder is None:
            return None
        try:
            config = read_llm_config(folder)
            history = FinetuneReport.from_json(path / REPORT).history
        except (ArtifactError, FileNotFoundError) as exc:
            logger.warning("%s; the run is done again", exc)
            return None
        if config["run"] != run or (self.options.merge and not config["merged"]):
            return None
        loaded = load_llm(folder, base_model=self.model_id, **self._how())
        note = "this run had been finished and saved before; it was measured again, not trained"
        return Trained(loaded.model, history, [note])

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

    def _checkpoints_beside(self) -> Path:
        path = self.model_output_path
        assert path is not None
        return path.with_name(f"{path.name}.checkpoints")


def _check_in_place(given: dict[str, Any], how: Mapping[str, Any]) -> None:
    """The model in memory is served as it was trained: it is not loaded anew."""
    for name, value in how.items():
        if name in given and given.pop(name) != value:
            raise ValueError(
                f"{name} must be the one of the run, {value!r}: with model_output_path=None the "
                "tuned LLM is not loaded anew"
            )


def _remove_runs(folder: Path) -> None:
    """Remove the folders of runs, each of which a fingerprint names, and nothing else."""
    if not folder.is_dir():
        return
    for run in folder.iterdir():
        if run.is_dir() and re.fullmatch("[0-9a-f]{12,}", run.name):
            shutil.rmtree(run, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else lies there too
        folder.rmdir()
