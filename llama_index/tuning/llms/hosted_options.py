"""What a hosted job is asked for, and the request that says it in the server's dialect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from llama_index.tuning.llms.hosted_client import ServerKind

Method = Literal["supervised", "dpo"]

RUN_KEY = "llama_index_tuning_run"
"""The metadata key that lets a job be found again."""

_KNOWN = {
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
    "dpo": ("n_epochs", "batch_size", "learning_rate_multiplier", "beta"),
}
_WHOLE = ("n_epochs", "batch_size")
_OURS = ("model", "training_file", "validation_file", "method", "hyperparameters", "metadata")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How a hosted job tunes."""

    model: str
    """The base model's name at the server."""
    method: Method = "supervised"
    """`"supervised"`, or `"dpo"`: preferences between two answers."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """`n_epochs`, `batch_size`, `learning_rate_multiplier`, `beta` (dpo), or `"auto"` for any;
    other names where the server is neither OpenAI nor Azure."""
    suffix: str | None = None
    """Becomes part of the tuned model's name; 1 to 64 characters."""
    seed: int | None = None
    """The server's seed."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """At most 15 texts that the server keeps with the job."""
    integrations: Sequence[Mapping[str, Any]] = ()
    """Passed on, such as Weights & Biases."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields of one server only, such as Azure's `trainingType`."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ValueError(f"base_model must be a non-empty name, got {self.model!r}")
        if self.method not in get_args(Method):
            choices = ", ".join(get_args(Method))
            raise ValueError(f"unknown method {self.method!r}; choose one of: {choices}")
        self._check_kinds()
        if self.suffix is not None and not 1 <= len(self.suffix) <= 64:
            raise ValueError(
                f"suffix must have 1 to 64 characters, got {len(self.suffix)}: {self.suffix!r}"
            )
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if self.seed is not None and (not whole or self.seed < 0):
            raise ValueError(f"seed must be a whole number >= 0, got {self.seed!r}")
        for name, value in self.hyperparameters.items():
            _check_hyperparameter(name, value)
        _check_metadata(self.metadata)
        taken = [name for name in self.extra_body if name in _OURS]
        if taken:
            raise ValueError(f"extra_body must not hold {taken[0]!r}: there is an argument for it")

    def _check_kinds(self) -> None:
        for name in ("hyperparameters", "metadata", "extra_body"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                kind = type(value).__name__  # a value may be secret
                raise TypeError(f"{name} must map names to values, got {kind}")
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise TypeError(f"{name} must have texts as names, got {wrong[0]!r}")
        given = self.integrations
        several = isinstance(given, Sequence) and not isinstance(given, str | bytes)
        if not several or not all(isinstance(item, Mapping) for item in given):
            kind = type(given).__name__
            raise TypeError(f"integrations must be a list of objects, got {kind}")
        if self.suffix is not None and not isinstance(self.suffix, str):
            raise TypeError(f"suffix must be a text, got {self.suffix!r}")

    def check_for(self, kind: ServerKind) -> None:
        """Hyperparameters that this kind of server is known not to take."""
        if kind not in ("openai", "azure"):
            return
        known = _KNOWN[self.method]
        for name in self.hyperparameters:
            if name not in known:
                raise ValueError(
                    f"unknown hyperparameter {name!r} for method {self.method!r}; "
                    f"choose of: {', '.join(known)}"
                )

    def run_key(self, training: str, validation: str | None) -> str:
        """The same for the same data and options: what makes a run one run.

        Args:
            training: SHA-256 of the training file.
            validation: of the validation file.
        """
        said = {**self.to_dict(), "training": training, "validation": validation}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; values of integrations and extra_body may be secret and are left out."""
        return {
            "model": self.model,
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "suffix": self.suffix,
            "seed": self.seed,
            "metadata": dict(self.metadata),
            "integrations": _digest([dict(item) for item in self.integrations]),
            "extra_body": _digest(dict(self.extra_body)),
        }

    def request(
        self, kind: ServerKind, training_file: str, validation_file: str | None, run_key: str | None
    ) -> dict[str, Any]:
        """The arguments of `fine_tuning.jobs.create`; nothing that was not asked for."""
        metadata = {**self.metadata, **({RUN_KEY: run_key} if run_key else {})}
        asked = {
            "model": self.model,
            "training_file": training_file,
            "validation_file": validation_file,
            "suffix": self.suffix,
            "seed": self.seed,
            "metadata": metadata or None,
            "integrations": [dict(item) for item in self.integrations] or None,
            "extra_body": dict(self.extra_body) or None,
            **self._method(kind),
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _method(self, kind: ServerKind) -> dict[str, Any]:
        values = dict(self.hyperparameters)
        if self.method == "supervised" and not values:
            return {}
        if self.method == "supervised" and kind in ("nebius", "other"):
            return {"hyperparameters": values}  # the older place, which they document
        inner = {"hyperparameters": values} if values else {}
        return {"method": {"type": self.method, self.method: inner}}


def _digest(value: Any) -> str | None:
    if not value:
        return None
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _check_hyperparameter(name: str, value: Any) -> None:
    if value == "auto" or name not in _KNOWN["dpo"]:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _WHOLE and not (number and isinstance(value, int) and value >= 1):
        raise ValueError(f"{name} must be a whole number >= 1 or 'auto', got {value!r}")
    if name not in _WHOLE and not (number and value > 0):
        raise ValueError(f"{name} must be a number > 0 or 'auto', got {value!r}")


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > 15:
        raise ValueError(f"metadata must hold at most 15 pairs, got {len(metadata)}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map texts to texts, got {key!r}: {value!r}")
        if len(key) > 64 or len(value) > 512:
            raise ValueError(
                f"metadata[{key!r}]: a key has at most 64 characters, a value 512, "
                f"got {len(key)} and {len(value)}"
            )
    if RUN_KEY in metadata:
        raise ValueError(f"metadata must not hold {RUN_KEY!r}: it marks the run")
