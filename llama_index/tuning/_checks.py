"""What arguments have to be, and which settings a component was given."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from llama_index.tuning.errors import ArtifactError

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.schema import MetadataMode


T = TypeVar("T")
P = ParamSpec("P")
_OURS = os.path.dirname(__file__) + os.sep


def check_options(options: T | None, kind: type[T]) -> T:
    """The options given, or the defaults.

    Raises:
        TypeError: they belong to something else.
    """
    if options is None:
        return kind()
    return of_type("options", options, kind)


def of_type(name: str, value: T, kind: type[Any], what: str | None = None) -> T:
    """The value, if it is of that class.

    Args:
        name: of the argument.
        value: what was given.
        kind: the class.
        what: how the message calls the class; its name by default.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what or kind.__name__}, got {type(value).__name__}")
    return value


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an `int`; NumPy's integers are taken too.

    Raises:
        ValueError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def number(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """The value as a `float`, from `low` to `high`.

    Raises:
        ValueError: it is no number, or outside.
    """
    if not _is_number(value) or not low <= value <= min(high, sys.float_info.max):
        bounds = f">= {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """The value as a `float` above 0.

    Raises:
        ValueError: it is no number, or not above 0.
    """
    if not _is_number(value) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return float(value)


def share(name: str, value: Any) -> float:
    """The value as a `float` between 0 and 1, neither of the two.

    Raises:
        ValueError: it is no number, or outside.
    """
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r:.100}")
    return float(value)


def callable_or_none(name: str, value: object) -> None:
    """A function, or `None`.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {value!r:.100}")


def text_or_none(name: str, value: object) -> None:
    """A text, or `None`.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a text or None, got {value!r:.100}")


def device_or_none(name: str, value: Any) -> Any:
    """PyTorch's device or its name, as it was given, or `None`; whether it is there, PyTorch says.

    Raises:
        TypeError: it is something else.
    """
    torch = type(value).__module__ == "torch"  # which is not imported for this
    if value is not None and not torch and not (isinstance(value, str) and value):
        raise TypeError(f"{name} must be a device of PyTorch or its name, got {_shown(value)}")
    return value


def path_or_none(name: str, value: Any) -> Any:
    """A path as it was given, or `None`; see `folder_path`."""
    return value if value is None or folder_path(name, value) else None


def items_of(name: str, value: Any, what: str) -> Iterable[Any]:
    """An iterable of `what`, which no text and no bytes are.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {what}, got {type(value).__name__}")
    return value


def whole_numbers(name: str, values: object, least: int) -> tuple[int, ...]:
    """The values of a tuple or list, each by `whole_number`."""
    return tuple(whole_number(name, value, least) for value in listed(name, values, "numbers"))


def listed(name: str, value: object, what: str) -> tuple[Any, ...]:
    """The items of a tuple or list, such as `what`.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of {what}, got {value!r}")
    return tuple(value)


def folder_path(name: str, value: object) -> Path:
    """The value as a path.

    Raises:
        TypeError: it is neither text nor a path, or empty, or holds a null character.
        ValueError: it begins with `~`, which would be a folder of that name.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise TypeError(f"{name} must be a path, got {value!r:.200}")
    if text != os.path.expanduser(text):
        raise ValueError(f"{name}: {text} means the home folder to a shell alone; write it out")
    return Path(text)


def check_model_id(model_id: str) -> None:
    """A model's folder must exist; a name is looked for when it is loaded."""
    if not isinstance(model_id, str) or not model_id.strip():
        raise ValueError(f"model_id must be a model's name or folder, got {model_id!r}")
    path = folder_path("model_id", model_id)
    if (path.is_absolute() or model_id.startswith(".")) and not path.is_dir():
        raise ArtifactError(f"model_id: the folder {model_id} does not exist")


def output_path(value: object) -> Path | None:
    """An engine's `model_output_path`: a path, or `None` to write nothing."""
    return None if value is None else folder_path("model_output_path", value)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of whoever called this package, however many of its frames lie between."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith((_OURS, "<string>")):
        level, frame = level + 1, frame.f_back  # <string>: what dataclasses write
    warnings.warn(message, category, stacklevel=level)


def set_plain(options: object, name: str, value: object) -> None:
    """Keep a checked value in its plain type, so that reports can be written: NumPy's cannot."""
    object.__setattr__(options, name, value)  # options are frozen, but for this


def check_counts(**counts: int) -> None:
    """Each of them is a whole number from 1 on."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def metadata_mode(given: Any) -> MetadataMode:
    """Which of a node's metadata its text has: a `MetadataMode` of LlamaIndex, or its value."""
    from llama_index.core.schema import MetadataMode

    modes = [mode.value for mode in MetadataMode]
    if given not in modes:
        raise ValueError(f"metadata_mode must be one of: {', '.join(modes)}; got {given!r}")
    return MetadataMode(given)


def plain_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Refuse what is of another type than the annotation says, before any work of the function.

    Flags, texts, paths, seeds, lists and LlamaIndex's parts are looked at; whatever else an
    argument has to be, and what a list holds, is the function's own to check. A default passes as
    it is.
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    rules = {
        name: (rule, parameter.default)
        for name, parameter in parameters.items()
        if (rule := _rule_of(name, str(parameter.annotation))) is not None
    }

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in chain(zip(names, args, strict=False), kwargs.items()):
            rule, default = rules.get(name, (None, value))
            if rule is not None and value is not default:
                rule(name, value)
        return function(*args, **kwargs)

    return checked


def plain_fields(options: Any) -> None:
    """What `plain_arguments` asks of a function's arguments, of the fields of a dataclass."""
    for each in dataclasses.fields(options):
        value, rule = getattr(options, each.name), _rule_of("", str(each.type))
        if rule is not None and value is not each.default:
            rule(each.name, value)


Rule = Callable[[str, Any], object]


def _rule_of(name: str, annotation: str) -> Rule | None:
    """What an annotation, as it is written, asks of a value; None: nothing that is checked here."""
    kind = annotation.removesuffix(" | None")
    rule = _RULES.get(kind)
    if name == "seed" and kind == "int":
        rule = functools.partial(whole_number, least=0)  # NumPy's generators take no others
    if rule is None and kind in _PARTS:
        rule = functools.partial(_part, kind=kind)
    if rule is None and (found := _LIST.fullmatch(kind)) and found[1] in _ITEMS:
        rule = functools.partial(_list, what=_ITEMS[found[1]])
        if name.endswith("_ids"):  # a dictionary's keys may be meant
            rule = functools.partial(items_of, what="ids")
    if rule is None or kind == annotation:
        return rule
    if kind == "bool":
        rule = functools.partial(_flag, what="True, False or None")
    return functools.partial(_unless_none, rule=rule)


def _unless_none(name: str, value: Any, rule: Rule) -> None:
    if value is not None:
        rule(name, value)


def _flag(name: str, value: Any, what: str = "True or False") -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be {what}, got {_shown(value)}")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {_shown(value)}")


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must map names to values, got {type(value).__name__}")


def _list(name: str, value: Any, what: str) -> None:
    record = isinstance(value, Mapping) or hasattr(type(value), "model_fields")  # one node, say
    if record or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {what}, got {type(value).__name__}")


def _function(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A plain value; of anything else, which may hold a key, the class."""
    plain = value is None or isinstance(value, (str, bytes, int, float))
    return f"{value!r:.100}" if plain else type(value).__name__


def _matrix(name: str, value: Any) -> None:
    import numpy as np

    if np.ndim(value) != 2:
        got = getattr(value, "shape", type(value).__name__)
        raise TypeError(f"{name} must be numbers of shape (rows, dim), got {got}")


_RULES: dict[str, Rule] = {
    "bool": _flag,
    "str": _text,
    "Float32": _matrix,
    "Mapping[str, Any]": _mapping,
    "Where": _function,
    "Teacher": _text,
    "str | PathLike[str]": folder_path,
    "PathLike": folder_path,
    "Path": folder_path,
}
_LIST = re.compile(r"(?:Iterable|Sequence)\[(.*)\]")
_ITEMS = {
    "str": "texts",
    "BaseNode": "nodes",
    "Document": "documents",
    "Mapping[str, Any]": "mappings",
    "Iterable[object]": "lists",
    "Sequence[object]": "lists",
    "NDArray[np.float64]": "arrays",
    "QuestionAnswer": "rows",
    "CallItem": "items",
    "StyleItem": "items",
    "AnyTool": "tools",
    "MetadataType": "choices",
    "Check": "checks",
    "StyleCheck": "checks",
    "TrainerCallback": "callbacks",
}
"""What a list is annotated to hold → what messages call it."""
_PARTS = {
    "BaseEmbedding": ("base.embeddings.base", "a BaseEmbedding"),
    "BaseEvaluator": ("evaluation", "a BaseEvaluator"),
    "BaseRetriever": ("base.base_retriever", "a retriever of LlamaIndex"),
    "BaseSelector": ("base.base_selector", "a BaseSelector"),
    "LLM": ("llms", "an LLM of LlamaIndex"),
}
"""LlamaIndex's class → where it is, and what messages call it."""


def _part(name: str, value: Any, kind: str) -> None:
    where, what = _PARTS[kind]
    if not isinstance(value, getattr(import_module(f"llama_index.core.{where}"), kind)):
        index = kind == "BaseRetriever" and hasattr(value, "as_retriever")
        hint = "; pass index.as_retriever()" if index else ""
        got = repr(value) if kind == "LLM" and isinstance(value, str) else type(value).__name__
        raise TypeError(f"{name} must be {what}, got {got}{hint}")


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Changes with the prompts and plain values among a component's settings."""
    from llama_index.core.prompts import BasePromptTemplate

    plain = {
        name: value.get_template() if isinstance(value, BasePromptTemplate) else value
        for name, value in settings.items()
        if isinstance(value, (BasePromptTemplate, str, int, float, bool))
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def identity(teacher: BaseEvaluator) -> dict[str, str]:
    """What decides a teacher's verdicts beside its model: class, prompts, plain settings."""
    # Not get_prompts(): AnswerRelevancyEvaluator's fails (llama-index-core 0.14).
    return {"teacher": type(teacher).__name__, "settings": settings_hash(vars(teacher))}
