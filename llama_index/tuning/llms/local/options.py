"""How an LLM is tuned on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llama_index.tuning._checks import plain_fields
from llama_index.tuning.llms.serving.template import check_template_arguments

Method = Literal["sft", "dpo"]
Weights = Literal["lora", "full"]
TooLong = Literal["error", "drop"]
Quantization = Literal["4bit"]

_CHOICES: dict[str, Any] = {
    "method": Method,
    "weights": Weights,
    "too_long": TooLong,
}
_WHOLE = {
    "lora_rank": 1,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "save_steps": 1,
    "seed": 0,
}
_LEARNING_RATES = {
    ("sft", "lora"): 2e-4,
    ("sft", "full"): 2e-5,
    ("dpo", "lora"): 5e-6,
    ("dpo", "full"): 5e-7,
}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceOptions:
    """How an LLM is tuned on this machine.

    Example:
        >>> HuggingFaceOptions(weights="full").learning_rate_used
        2e-05
    """

    method: Method = "sft"
    """`"sft"`: supervised, on the assistant's words; `"dpo"`: on preferences (Rafailov et al.
    2023), each example with a `rejected` answer beside its last one."""

    weights: Weights = "lora"
    """`"lora"`: low-rank updates beside frozen weights (Hu et al. 2022); `"full"`: all weights."""

    lora_rank: int = 16
    """Rank of the updates."""

    lora_dropout: float = 0.0
    """Dropout before the updates, from 0 to below 1."""

    target_modules: str | tuple[str, ...] = "all-linear"
    """Which layers get updates: PEFT's word, or the layers' names."""

    learning_rate: float | None = None
    """Peak of the schedule; None: 2e-4 with LoRA and 2e-5 without, 5e-6 and 5e-7 for DPO."""

    epochs: float = 3.0
    """Passes over the training conversations."""

    max_steps: int = -1
    """Stop after this many steps; -1: after `epochs`."""

    batch_size: int = 8
    """Conversations a step and device."""

    gradient_accumulation: int = 1
    """Batches that one step adds up."""

    warmup: float = 0.03
    """Share of the steps spent warming up, from 0 to below 1."""

    beta: float = 0.1
    """DPO only: how closely the tuned model keeps to the base."""

    max_length: int | None = None
    """Tokens of a conversation; None: the model's own limit. Nothing is ever cut."""

    too_long: TooLong = "error"
    """What happens to a longer conversation: `"error"`, or `"drop"`, which counts them."""

    held_out: float = 0.1
    """Share of the conversations to measure on, without `val_dataset` and `evaluate`."""

    packing: bool = False
    """Fill rows with several conversations; on a GPU with flash attention only."""

    quantize: Quantization | None = None
    """`"4bit"`: load the frozen weights in NF4 (Dettmers et al. 2023); needs bitsandbytes."""

    gradient_checkpointing: bool = False
    """Spend time to save memory: activations are computed again on the way back."""

    device: str | None = None
    """`"cpu"` trains there; None: a GPU if there is one."""

    save_steps: int = 50
    """Steps between checkpoints."""

    resume: bool = True
    """Go on from the newest complete checkpoint of this very run, if there is one."""

    merge: bool = False
    """Save, beside a LoRA adapter, a model with the adapter merged in."""

    template_arguments: Mapping[str, Any] | None = None
    """What the chat template is called with, in training and in serving; kept with the model.
    None: `{"enable_thinking": False}` if the template reads it and no message thinks."""

    revision: str | None = None
    """Revision of a model of the hub."""

    trust_remote_code: bool = False
    """Run code that a model brings along."""

    seed: int = 0
    """Decides initial LoRA weights, split, order and dropout."""

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose one of: {known}")
        if self.quantize not in (None, "4bit"):
            raise ValueError(f"unknown quantize {self.quantize!r}; choose one of: 4bit, None")
        self._check_numbers()
        self._check_kinds()
        if self.quantize and self.weights == "full":
            raise ValueError("quantize='4bit' freezes the weights: it needs weights='lora'")
        if self.packing and self.method == "dpo":
            raise ValueError("packing is for method='sft'")
        if self.packing and self.device == "cpu":
            raise ValueError("packing needs a GPU with flash attention; leave it off on a CPU")
        if self.merge and self.weights == "full":
            raise ValueError("merge is for weights='lora'; full weights are saved whole anyway")

    def _check_numbers(self) -> None:
        for name, least in _WHOLE.items():
            if not _is_whole(getattr(self, name), least):
                raise ValueError(
                    f"{name} must be a whole number >= {least}, got {getattr(self, name)!r}"
                )
        if self.seed >= 1 << 32:  # numpy takes no larger one
            raise ValueError(f"seed must be below 2**32, got {self.seed}")
        if self.max_steps != -1 and not _is_whole(self.max_steps, 1):
            raise ValueError(
                f"max_steps must be a whole number >= 1, or -1 for no limit, got {self.max_steps!r}"
            )
        if self.max_length is not None and not _is_whole(self.max_length, 8):
            raise ValueError(f"max_length must be a whole number >= 8, got {self.max_length!r}")
        if not (_is_number(self.held_out) and 0.01 <= self.held_out <= 0.5):
            raise ValueError(f"held_out must be between 0.01 and 0.5, got {self.held_out!r}")
        for name in ("warmup", "lora_dropout"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1):
                raise ValueError(f"{name} must be from 0 to below 1, got {value!r}")
        for name in ("learning_rate", "epochs", "beta"):
            value = getattr(self, name)
            if name == "learning_rate" and value is None:
                continue
            if not (_is_number(value) and value > 0):
                raise ValueError(f"{name} must be above 0 and finite, got {value!r}")

    def _check_kinds(self) -> None:
        check_template_arguments(self.template_arguments)
        targets = self.target_modules
        named = isinstance(targets, tuple | list) and all(isinstance(t, str) for t in targets)
        if not targets or not (isinstance(targets, str) or named):
            raise ValueError(
                f"target_modules must be a text or a tuple of layers' names, got {targets!r}"
            )

    @property
    def learning_rate_used(self) -> float:
        """The learning rate; if that is None, the default of method and weights."""
        return self.learning_rate or _LEARNING_RATES[self.method, self.weights]


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and math.isfinite(value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
