"""What can be known about a run in seconds, before the first step."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets.chat import ChatDataset, opening
from llama_index.tuning.errors import BaseModelError, DatasetError
from llama_index.tuning.hf.processes import BUILDING
from llama_index.tuning.llms.local.data import IGNORED, Row, TokenizedChats
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.serving.loading import Source, default_device
from llama_index.tuning.llms.serving.template import ChatTemplate

GIB = 1 << 30
PROCESS = 0.55 * GIB
"""Python, torch and transformers."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a model's configuration says, without its weights.

    Attributes:
        parameters: how many numbers it has.
        hidden: width of its layers.
        layers: how many there are.
        intermediate: width inside their feed-forward part.
        keys: width of the keys, which heads may share.
        vocabulary: tokens that it has vectors for.
        context: tokens that it attends to.
        trainable: how many of its parameters, or of the adapter's, are trained.
        eos_ids: tokens at which it stops, beside the tokenizer's.
    """

    parameters: int
    hidden: int
    layers: int
    intermediate: int
    keys: int
    vocabulary: int
    context: int
    trainable: int
    eos_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What a run will do and need; `print(report)` shows it.

    Attributes:
        model: name of the base model.
        conversations: conversations to train on.
        rows: sequences that they make.
        tokens: tokens of all rows.
        trained_tokens: tokens with a loss: the assistant's words and its end tokens.
        longest: tokens of the longest row.
        max_length: the limit.
        dropped: share of the conversations that are left out for their length; none is ever cut.
        end_tokens: the tokens at which the model stops.
        ends_trained: share of the learnt turns that end in one of them.
        round_trip: share of the learnt answers, tool calls included, that serving reads from
            their tokens word for word.
        tools: whether the chat template knows tools, and its calls can be read.
        template_arguments: what the chat template is called with, in training and in serving.
        measured: conversations to measure on.
        overlap: of these, how many open like one that is trained on.
        steps: steps of the run.
        trainable: parameters that are trained.
        memory_gib: memory that training will need, roughly.
        disk_gib: disk that checkpoints and the result will need, at most.
        device: where the training runs.
        warnings: what a reader should know.
    """

    model: str
    conversations: int
    rows: int
    tokens: int
    trained_tokens: int
    longest: int
    max_length: int
    dropped: float
    end_tokens: list[str]
    ends_trained: float
    round_trip: float
    tools: bool
    template_arguments: dict[str, Any]
    measured: int
    overlap: int
    steps: int
    trainable: int
    memory_gib: float
    disk_gib: float
    device: str
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(self.end_tokens)
        lines = [
            f"preflight of {self.model} on {self.device}",
            f"  train on      {self.conversations} conversations, {self.rows} rows, "
            f"{self.steps} steps",
            f"  tokens        {self.tokens}, of which learnt {self.trained_tokens}; "
            f"longest row {self.longest} of {self.max_length}",
            f"  left out      {self.dropped:.1%} of the conversations are too long; none is cut",
            f"  end token     {ends}: in the loss of {self.ends_trained:.1%} of the learnt turns",
            f"  template      gives back {self.round_trip:.1%} of the answers word for word; "
            f"{'knows' if self.tools else 'knows no'} tools"
            + "".join(f"; {name}={value}" for name, value in self.template_arguments.items()),
            f"  measure on    {self.measured} conversations, {self.overlap} of them in training",
            f"  train         {self.trainable:,} parameters",
            f"  needs         about {self.memory_gib:.1f} GiB of memory, "
            f"{self.disk_gib:.1f} GiB of disk at most",
        ]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def read_shape(source: Source, *, lora: Any = None, trust_remote_code: bool = False) -> ModelShape:
    """A model's shape from its configuration: no weight is read.

    Args:
        source: where the model is.
        lora: PEFT's description of the adapter; None: all weights are trained.
        trust_remote_code: run code that the model brings along.

    Raises:
        BaseModelError: there is no such configuration, or it is none of a causal language model.
        ValueError: the adapter's `target_modules` are none of the model's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            source.name, trust_remote_code=trust_remote_code, **source.arguments
        )
        with BUILDING, torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call,unused-ignore]
                config, trust_remote_code=trust_remote_code
            )
    except Exception as exc:  # of many kinds, by the model's own code
        raise BaseModelError(
            f"{source.name} is no causal language model that transformers can build: "
            f"{type(exc).__name__}: {exc}"
        ) from exc
    text = config.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())
    return ModelShape(
        parameters=parameters,
        trainable=parameters if lora is None else _adapter_size(model, lora),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        intermediate=_known(text, "intermediate_size", "n_inner") or 4 * text.hidden_size,
        keys=_key_width(text),
        vocabulary=model.get_input_embeddings().num_embeddings,
        context=int(getattr(text, "max_position_embeddings", None) or 4096),
        eos_ids=_generation_ends(source),
    )


def examine(
    chats: TokenizedChats,
    dataset: ChatDataset,
    measured: ChatDataset | None,
    template: ChatTemplate,
    shape: ModelShape,
    options: HuggingFaceOptions,
    *,
    eos_ids: Sequence[int],
    max_length: int,
    steps: int,
    tools: bool,
) -> PreflightReport:
    """The report of a run whose conversations were tokenised."""
    rows = chats.rows
    longest = max(row_length(row) for row in rows)
    trainable = shape.trainable
    device = options.device or default_device()
    overlap = len(shared_openings(dataset, measured)) if measured is not None else 0
    memory = _memory(shape, options, trainable, longest, device)
    trip = _round_trip(rows)
    dropped = len(chats.too_long) / len(dataset)
    tokenizer = template.tokenizer
    return PreflightReport(
        model=Path(template.name).name,
        conversations=len(dataset) - len(chats.too_long),
        rows=len(rows),
        tokens=sum(len(row.input_ids) for row in rows),
        trained_tokens=sum(row.trained for row in rows),
        longest=longest,
        max_length=max_length,
        dropped=dropped,
        end_tokens=[str(token) for token in tokenizer.convert_ids_to_tokens(list(eos_ids))],
        ends_trained=_ends_trained(rows, eos_ids),
        round_trip=trip,
        tools=tools,
        template_arguments=template.arguments,
        measured=len(measured or []),
        overlap=overlap,
        steps=steps,
        trainable=trainable,
        memory_gib=memory / GIB,
        disk_gib=_disk(shape, options, trainable) / GIB,
        device=device,
        warnings=[
            *_unlearnt(dataset, options),
            *_warnings(chats, dropped, trip, overlap, memory, device),
        ],
    )


def shared_openings(train: ChatDataset, measured: ChatDataset) -> list[int]:
    """Places of the measured conversations that open like one of the training's."""
    known = {opening(example) for example in train.examples}
    return [n for n, example in enumerate(measured.examples) if opening(example) in known]


def check_room(report: PreflightReport, path: Path) -> None:
    """There is room on the disk for checkpoints and result.

    Raises:
        OSError: there is not; nothing was written.
    """
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / GIB
    if free < report.disk_gib:
        raise OSError(
            errno.ENOSPC,
            f"model_output_path {path}: {free:.1f} GiB are free, and checkpoints and result may "
            f"need {report.disk_gib:.1f} GiB",
        )


def row_length(row: Row) -> int:
    """Tokens of a row, of its longer answer if there are two."""
    return max(len(row.input_ids), row.prompt_length + len(row.worse or []))


def _known(config: Any, *names: str) -> int | None:
    return next((int(v) for name in names if (v := getattr(config, name, None))), None)


def _key_width(config: Any) -> int:
    heads = config.num_attention_heads
    width = _known(config, "head_dim") or config.hidden_size // heads
    return width * (_known(config, "num_key_value_heads") or heads)


def _adapter_size(model: Any, lora: Any) -> int:
    import torch
    from peft import get_peft_model

    with torch.device("meta"):
        try:
            adapted = get_peft_model(model, lora)
        except ValueError as exc:
            raise ValueError(f"target_modules: {exc}") from exc
    return int(adapted.get_nb_trainable_parameters()[0])


def _generation_ends(source: Source) -> tuple[int, ...]:
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(source.name, **source.arguments)
    except OSError:  # it has none
        return ()
    ends = config.eos_token_id
    return (ends,) if isinstance(ends, int) else tuple(ends or ())


def _ends_trained(rows: Sequence[Row], eos_ids: Sequence[int]) -> float:
    """Of the stretches with a loss, how many end in an end token."""
    good = turns = 0
    for row in rows:
        for place, label in enumerate(row.labels):
            following = row.labels[place + 1] if place + 1 < len(row.labels) else IGNORED
            if label != IGNORED and following == IGNORED:
                turns, good = turns + 1, good + (label in eos_ids)
        if row.worse is not None:
            turns, good = turns + 1, good + (row.worse[-1] in eos_ids)
    return good / turns


def _round_trip(rows: Sequence[Row]) -> float:
    """Of the learnt answers, how many serving would read from their tokens."""
    found = [good for row in rows for good in row.given_back]
    return sum(found) / len(found)


def _memory(
    shape: ModelShape, options: HuggingFaceOptions, trainable: int, longest: int, device: str
) -> float:
    """Bytes: the process, weights, AdamW's two moments, activations, logits.

    The factors were fitted to what sixteen runs on a CPU took; see `benchmarks/llm_memory.py`.
    """
    half = device.startswith("cuda") and options.weights == "lora"
    weight = 0.6 if options.quantize else 2 if half else 4
    copies = 2 if options.method == "dpo" and options.weights == "full" else 1
    batch = options.batch_size * (2 if options.method == "dpo" else 1)
    tokens = batch * longest
    size = 2 if device.startswith("cuda") else 4
    layer: float = 15 * shape.hidden + 5 * shape.intermediate + 19 * shape.keys
    if options.gradient_checkpointing:
        layer = shape.hidden + 0.3 * layer
    activations = tokens * shape.layers * layer * size
    logits = tokens * shape.vocabulary * 4 * 5.5
    held = shape.parameters * weight * copies + trainable * 8
    return PROCESS + held + max(activations + logits, trainable * 4)


def _disk(shape: ModelShape, options: HuggingFaceOptions, trainable: int) -> float:
    """Bytes: three checkpoints with AdamW's moments while one replaces another, and the result."""
    merged = shape.parameters * 4 if options.merge else 0
    return trainable * 12 * 3 + trainable * 4 + merged + 64 * (1 << 20)


def _unlearnt(dataset: ChatDataset, options: HuggingFaceOptions) -> list[str]:
    worse = sum(example.rejected is not None for example in dataset.examples)
    if options.method == "dpo" or not worse:
        return []
    return [f"{worse} conversations have a worse answer: method='dpo' learns from it, 'sft' not"]


def _warnings(
    chats: TokenizedChats, dropped: float, trip: float, overlap: int, memory: float, device: str
) -> list[str]:
    found = []
    if dropped:
        found.append(f"{len(chats.too_long)} conversations are too long and are left out")
    if trip < 1:
        found.append(
            f"the chat template changes answers: of {1 - trip:.1%}, what is learnt is not read as "
            "it stands in the dataset"
        )
    if overlap:
        found.append(f"{overlap} conversations to measure on are trained on too")
    if chats.unwritten_thoughts:
        found.append(
            f"{chats.unwritten_thoughts} messages have thinking, which the chat template has no "
            "place for: it is not learnt"
        )
    room = _memory_there(device)
    if memory > room:
        found.append(
            f"about {memory / GIB:.1f} GiB are needed and {device} has {room / GIB:.1f} GiB; a "
            "smaller batch_size, gradient_checkpointing or quantize needs less"
        )
    return found


def _memory_there(device: str) -> float:
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")


def check_overlap(train: ChatDataset, measured: ChatDataset) -> None:
    """Nothing is measured on what is trained on.

    Raises:
        DatasetError: naming the conversations of `val_dataset`.
    """
    shared = shared_openings(train, measured)
    if shared:
        raise DatasetError(
            "conversations of val_dataset open like one that is trained on:",
            [f"example {number}" for number in shared],
        )
