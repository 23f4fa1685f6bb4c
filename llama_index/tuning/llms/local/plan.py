"""A run of the local LLM engine before its first step: what is trained on, how long, on what.

What a run of the local LLM engine came to: gains, verdict, report.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.thoughts import split_thoughts
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError, MissingExtraError, TemplateError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import MIN_SLICE
from llama_index.tuning.llms.evaluation import SCORE, Scores, check_same_items, peer_gains
from llama_index.tuning.llms.local.data import TokenizedChats, tokenize_chats
from llama_index.tuning.llms.local.measure import LIKELIHOOD, PREFERENCE
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.local.preflight import (
    PreflightReport,
    check_overlap,
    examine,
    read_shape,
)
from llama_index.tuning.llms.local.train import Trained, lora_config, steps_of_run
from llama_index.tuning.llms.serving.loading import (
    Source,
    check_present,
    check_quantize,
    default_device,
    find_model,
    load_tokenizer,
)
from llama_index.tuning.llms.serving.replies import parser_of, understands
from llama_index.tuning.llms.serving.template import ChatTemplate
from llama_index.tuning.llms.serving.tool_parsers import ToolParser
from llama_index.tuning.report import FinetuneReport, Gain


@dataclass
class Plan:
    """A run before its first step: all that can be known without the model's weights."""

    source: Source
    tokenizer: Any
    train: ChatDataset
    chats: TokenizedChats
    measured: ChatDataset | None
    measured_chats: TokenizedChats | None
    max_length: int
    preflight: PreflightReport
    template_arguments: dict[str, Any]
    tool_parser: ToolParser | None


def parts_of(
    dataset: ChatDataset,
    val_dataset: ChatDataset | None,
    options: HuggingFaceOptions,
    *,
    scored: bool,
) -> tuple[ChatDataset, ChatDataset | None]:
    """Conversations to train on, and to measure on; none of the latter if `scored`."""
    if not len(dataset):
        raise DatasetError("dataset is empty: there is nothing to learn")
    if val_dataset is not None:
        if not len(val_dataset):
            raise DatasetError("val_dataset is empty: there is nothing to measure on")
        check_overlap(dataset, val_dataset)
        return dataset, val_dataset
    if scored:
        return dataset, None
    return dataset.split(options.held_out, seed=options.seed)


def make_plan(
    model_id: str | PathLike[str],
    train_set: ChatDataset,
    measured: ChatDataset | None,
    options: HuggingFaceOptions,
    output: Path | None,
    tool_parser: ToolParser | None = None,
) -> Plan:
    """All that is known without weights, and every reason not to begin.

    Args:
        model_id: the base model.
        train_set: conversations to train on.
        measured: conversations to measure on; None if the caller's scores measure.
        options: how to train.
        output: folder of the tuned LLM, if one is written.
        tool_parser: how the model writes tool calls; None: as its template does.
    """
    source = find_model(model_id, options.revision)
    _check_output(source, output)
    tokenizer = load_tokenizer(source, trust_remote_code=options.trust_remote_code)
    arguments = template_arguments_of(options, train_set, tokenizer, source.name)
    template = ChatTemplate(tokenizer, source.name, arguments)
    parser = tool_parser or parser_of(template)
    check_parser(template, parser, [train_set, *([measured] if measured else [])])
    shape = read_shape(
        source, lora=lora_config(options), trust_remote_code=options.trust_remote_code
    )
    max_length = _limit(options.max_length, shape.context)
    eos_ids = list(dict.fromkeys([int(tokenizer.eos_token_id), *shape.eos_ids]))
    chats = tokenize_chats(train_set, template, eos_ids, options, max_length, parser)
    if not chats.rows:
        raise DatasetError(
            f"there is nothing to learn: all {len(train_set)} conversations are longer than "
            f"max_length, {max_length} tokens"
        )
    measured, measured_chats, left_out = _measured(
        measured, template, eos_ids, options, max_length, parser
    )
    report = examine(
        chats,
        train_set,
        measured,
        template,
        shape,
        options,
        eos_ids=eos_ids,
        max_length=max_length,
        steps=steps_of_run(len(chats.rows), options),
        tools=template.supports_tools and parser is not None,
    )
    if left_out:
        report.warnings.append(
            f"{left_out} conversations to measure on are too long and are left out"
        )
    return Plan(
        source,
        tokenizer,
        train_set,
        chats,
        measured,
        measured_chats,
        max_length,
        report,
        template.arguments,
        parser,
    )


def _check_output(source: Source, output: Path | None) -> None:
    if output is not None and source.local and Path(source.name).is_relative_to(output.resolve()):
        raise ValueError(
            f"model_output_path {output} holds the base model, which the result would replace; "
            "choose another"
        )


def template_arguments_of(
    options: HuggingFaceOptions, dataset: ChatDataset, tokenizer: Any, name: str
) -> dict[str, Any]:
    """What the template is called with: as the options say, or without thoughts if none is."""
    if options.template_arguments is not None:
        return dict(options.template_arguments)
    thinks = any(
        message.get("thinking") or split_thoughts(str(message.get("content") or ""))[0]
        for example in dataset.examples
        for message in example.messages
        if message["role"] == "assistant"
    )
    switch = "enable_thinking"
    return {switch: False} if not thinks and ChatTemplate(tokenizer, name).reads(switch) else {}


def check_parser(
    template: ChatTemplate, parser: ToolParser | None, datasets: Sequence[ChatDataset]
) -> None:
    """Calls that are learnt can be read when the model is served.

    Raises:
        TemplateError: there are calls, and the parser does not understand the template's.
    """
    calls = any(m.get("tool_calls") for d in datasets for e in d.examples for m in e.messages)
    if not calls or not template.supports_tools:  # a call is refused where it stands then
        return
    if parser is None or not understands(parser, template):
        which = "no parser here" if parser is None else f"not the {type(parser).__name__}"
        raise TemplateError(
            f"the tool calls that the chat template of {template.name} writes are understood by "
            f"{which}: the tuned model's calls would be lost; tool_parser= takes one of your own, "
            "a subclass of ToolParser"
        )


def check_libraries(options: HuggingFaceOptions) -> None:
    """What the run needs is installed, before anything is loaded."""
    for library in ("trl", "peft", "llama_index.llms.huggingface"):
        if not _installed(library):
            raise MissingExtraError("HuggingFaceFinetuneEngine", library, "llm")
    check_quantize(options.quantize)
    check_present(options.device)
    if options.packing and not (default_device().startswith("cuda") and _installed("flash_attn")):
        raise ValueError(
            "packing needs a GPU and flash attention (pip install flash-attn): without it the "
            "conversations of a row would see each other; leave it off"
        )


def _measured(
    dataset: ChatDataset | None,
    template: ChatTemplate,
    eos_ids: Sequence[int],
    options: HuggingFaceOptions,
    max_length: int,
    parser: ToolParser | None,
) -> tuple[ChatDataset | None, TokenizedChats | None, int]:
    """What is measured on: the conversations, their rows, and how many were left out."""
    if dataset is None:
        return None, None, 0
    chats = tokenize_chats(dataset, template, eos_ids, options, max_length, parser)
    if not chats.rows:  # found after the training, it would have been in vain
        raise DatasetError(
            f"there is nothing to measure on: all {len(dataset)} held-out conversations are "
            f"longer than max_length, {max_length} tokens"
        )
    dropped = set(chats.too_long)
    kept = dataset.subset([n for n in range(len(dataset)) if n not in dropped])
    return kept, chats, len(dropped)


def _installed(library: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # its parent is not
        return False


def _limit(wanted: int | None, context: int) -> int:
    if wanted is not None and wanted > context:
        raise ValueError(f"max_length must be at most the model's {context} tokens, got {wanted}")
    return wanted or context


LIBRARIES = ("torch", "transformers", "trl", "peft")


def likelihood_of(options: HuggingFaceOptions) -> str:
    """The name of what held-out conversations are measured by."""
    return PREFERENCE if options.method == "dpo" else LIKELIHOOD


def write_report(
    plan: Plan,
    trained: Trained,
    before: Scores,
    after: Scores,
    peers: Scores,
    *,
    options: HuggingFaceOptions,
    protected: Collection[str],
) -> FinetuneReport:
    """Base against tuned, and what is protected: a report without a verdict.

    Args:
        plan: of the run.
        trained: the tuned model and its curve.
        before: scores of the base, by name.
        after: those of the tuned model, of the same items.
        peers: scores of others that it is compared with.
        options: how it was trained.
        protected: names of the scores that must not fall.
    """
    check_same_items(before, after)
    likelihood = likelihood_of(options)
    asked = [_asked(example) for example in plan.measured.examples] if plan.measured else None
    gains = {
        name: paired_gain(before[name], after[name], groups=asked if name == likelihood else None)
        for name in before
    }
    guarded = {name: gains.pop(name) for name in protected}
    primary = SCORE if SCORE in gains else likelihood
    unit = "items" if primary == SCORE else "conversations"
    slices = {name: {SCORE: gain} for name, gain in guarded.items()}
    slices |= peer_gains(peers, after)
    if primary == SCORE and likelihood in gains:  # of other items, a table of its own
        slices["held-out conversations"] = {likelihood: gains.pop(likelihood)}
    return FinetuneReport(
        title=_title(plan, options),
        model=Path(plan.source.name).name,
        method="scored by evaluate=" if primary == SCORE else "held-out conversations",
        primary=primary,
        gains=gains,
        slices=slices,
        guards=list(guarded),
        data={"fingerprint": plan.train.fingerprint(), **plan.preflight.to_dict()},
        options={**asdict(options), "learning_rate": options.learning_rate_used},
        seed=options.seed,
        history=trained.history,
        notes=[*trained.notes, *plan.preflight.warnings, *_forgotten(guarded)],
        unit=unit,
    )


def _asked(example: ChatExample) -> str:
    """What tells held-out conversations apart: one that came up again says nothing new."""
    return json.dumps([m for m in example.messages if m["role"] != "assistant"], sort_keys=True)


def _title(plan: Plan, options: HuggingFaceOptions) -> str:
    how = f"LoRA rank {options.lora_rank}"
    weights = how if options.weights == "lora" else "all weights"
    return f"LLM {Path(plan.source.name).name} ({options.method.upper()}, {weights})"


def _forgotten(guarded: Mapping[str, Gain]) -> list[str]:
    """What a reader should know of the protected abilities."""
    notes = []
    for name, gain in guarded.items():
        if gain.high < 0:
            notes.append(
                f"{name}: {-gain.mean:.3f} was forgotten, from {gain.base:.3f} to {gain.tuned:.3f}"
            )
        if gain.n < MIN_SLICE:
            notes.append(f"{name} has {gain.n} items; the gate guards {MIN_SLICE} or more")
    return notes
