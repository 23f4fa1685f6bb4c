"""What a hosted job is asked for: checked when it is given, and said in the server's dialect."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from llama_index.tuning._checks import plain_fields
from llama_index.tuning.llms.hosted.client import ServerKind

Method = Literal["supervised", "dpo"]

RUN_KEY = "llama_index_tuning_run"
"""The metadata key that lets a job be found again."""

_OURS = {"model", "training_file", "validation_file", "method", "hyperparameters", "metadata"}


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How a hosted job tunes."""

    model: str
    """The base model's name at the server."""
    method: Method = "supervised"
    """`"supervised"`, or `"dpo"`: preferences between two answers."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """`n_epochs`, `batch_size`, `learning_rate_multiplier`, `beta` (dpo), or `"auto"` for any; a
    name that the server does not know is the server's to refuse."""
    suffix: str | None = None
    """Becomes part of the tuned model's name; 1 to 64 characters."""
    seed: int | None = None
    """The server's seed."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields of one server only, such as Azure's `trainingType`."""

    def __post_init__(self) -> None:
        plain_fields(self)
        if not isinstance(self.model, str) or not self.model.strip():
            raise ValueError(f"base_model must be a non-empty name, got {self.model!r}")
        check_texts(suffix=self.suffix)
        if self.method not in get_args(Method):
            choices = ", ".join(get_args(Method))
            raise ValueError(f"unknown method {self.method!r}; choose one of: {choices}")
        if self.suffix is not None and len(self.suffix) > 64:
            raise ValueError(f"suffix must have at most 64 characters, got {len(self.suffix)}")
        if self.seed is not None:
            check_whole("seed", self.seed, 0)
        for name in ("hyperparameters", "extra_body"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):  # its values may be secret, and are not shown
                raise TypeError(f"{name} must map names to values, got {type(given).__name__}")
        epochs = self.hyperparameters.get("n_epochs", "auto")
        if epochs != "auto":
            check_whole("n_epochs", epochs, 1)
        for name in _OURS & {*self.extra_body}:
            raise ValueError(f"extra_body must not hold {name!r}: the engine sets it")

    def run_key(self, training: bytes, validation: bytes | None) -> str:
        """The same for the same data and options: what makes a run one run."""
        hashes = [hashlib.sha256(data).hexdigest() for data in (training, validation or b"")]
        said = json.dumps([self.to_dict(), *hashes], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what `extra_body` holds may be secret, and only its hash is shown."""
        extra = json.dumps(dict(self.extra_body), sort_keys=True, default=str).encode()
        return {
            "model": self.model,
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "suffix": self.suffix,
            "seed": self.seed,
            "extra_body": hashlib.sha256(extra).hexdigest()[:16] if self.extra_body else None,
        }

    def request(self, kind: ServerKind, training: str, validation: str | None) -> dict[str, Any]:
        """The arguments of `fine_tuning.jobs.create`; nothing that was not asked for.

        Args:
            kind: whose dialect the server speaks.
            training: id of the training file.
            validation: id of the validation file.
        """
        values = dict(self.hyperparameters)
        inner = {"hyperparameters": values} if values else {}
        asked: dict[str, Any] = {
            "model": self.model,
            "training_file": training,
            "validation_file": validation,
            "suffix": self.suffix,
            "seed": self.seed,
            "extra_body": dict(self.extra_body) or None,
        }
        if self.method == "supervised" and kind == "other":
            asked |= inner  # the older place, which such servers document
        elif self.method != "supervised" or values:
            asked["method"] = {"type": self.method, self.method: inner}
        return {name: value for name, value in asked.items() if value is not None}


def check_texts(**texts: Any) -> None:
    """Each is a text that is not empty, or None. A value may be a key: it is not shown."""
    for name, value in texts.items():
        if value is not None and not (isinstance(value, str) and value.strip()):
            got = "an empty one" if isinstance(value, str) else type(value).__name__
            raise ValueError(f"{name} must be a text, got {got}")


def check_whole(name: str, value: Any, least: int) -> None:
    """A whole number, not too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def check_positive(**numbers: Any) -> None:
    """Each is a number above 0. NaN is none: it would let every comparison pass."""
    for name, value in numbers.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number > 0, got {value!r}")
