"""One run: items worked on concurrently, with a file that keeps every finished call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator


import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.tuning._checks import folder_path
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import run_async
from llama_index.tuning.asking.calls import CallOptions, Calls, OnFailure, check_counts
from llama_index.tuning.asking.results import Outcomes
from llama_index.tuning.asking.run_file import RunFile
from llama_index.tuning.errors import RunFileError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


def run_items(
    llm: LLM | None,
    items: Sequence[I],
    work: Callable[[Calls, I], Awaitable[R]],
    *,
    id_of: Callable[[I], str],
    header: Mapping[str, Any],
    output_path: PathLike | None,
    description: str,
    num_workers: int,
    retry_limit: int,
    options: CallOptions | None,
    max_calls: int | None = None,
    save_every: int = 500,
    on_failure: OnFailure = "continue",
    verbose: bool = True,
    show_progress: bool = False,
) -> Outcomes[R]:
    """`work` on every item, with `Calls` to ask through.

    Args:
        llm: whom `work` asks; `None` where it asks by itself.
        id_of: an item's id, distinct.
        header: what the run is, beside the model: prompt and options that decide its results.
        output_path: of the result; the run file lies beside it.
    """
    run_file = check_run(output_path, on_failure)
    head = dict(header)
    if llm is not None:
        head["model"] = f"{llm.class_name()}/{llm.metadata.model_name}"
    with RunFile(run_file, head, sync_every=save_every) as run:
        calls = Calls(
            llm,
            run,
            num_workers=num_workers,
            retry_limit=retry_limit,
            options=options,
            max_calls=max_calls,
            verbose=verbose,
        )
        outcomes = run_async(
            calls.map(
                items,
                partial(work, calls),
                id_of=id_of,
                description=description,
                show_progress=show_progress,
                on_failure=on_failure,
            )
        )
    outcomes.requests = calls.sent
    return outcomes


def check_run(output_path: PathLike | None, on_failure: OnFailure, **counts: int) -> Path | None:
    """The run file of an output; for those who work before they run, before that work.

    Raises:
        ValueError: an unknown `on_failure`, or a count below 1.
        RunFileError: a file is at `output_path` that no run wrote.
    """
    if on_failure not in ("continue", "fail"):
        raise ValueError(f"unknown on_failure {on_failure!r}; choose one of: continue, fail")
    check_counts(**counts)
    return _beside(output_path)


def default_llm(llm: LLM | None) -> LLM:
    """The LLM given, else LlamaIndex's `Settings.llm`."""
    from llama_index.core.base.llms.base import BaseLLM

    if isinstance(llm, BaseLLM):
        return llm
    if llm is not None:
        raise TypeError(f"llm must be an LLM of LlamaIndex, got {llm!r}")
    from llama_index.core import Settings

    return Settings.llm


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Changes with the prompts and plain values among a component's settings."""
    from llama_index.core.prompts import BasePromptTemplate

    plain = {
        name: value.get_template() if isinstance(value, BasePromptTemplate) else value
        for name, value in settings.items()
        if isinstance(value, (BasePromptTemplate, str, int, float, bool))
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def turn(names: Sequence[str], text: str) -> str | None:
    """One of the names, decided by the text alone: the same in every run."""
    if not names:
        return None
    return names[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % len(names)]


def _beside(output_path: PathLike | None) -> Path | None:
    """The run file of an output; an output that no run wrote is not written over."""
    if output_path is None:
        return None
    folder_path("output_path", output_path)
    path = Path(f"{os.fsdecode(output_path)}.run.jsonl")
    if Path(output_path).exists() and not path.exists():
        raise RunFileError(
            f"output_path: {output_path} exists and no run file lies beside it; choose another "
            "path, it would be overwritten"
        )
    return path


def identity(teacher: BaseEvaluator) -> dict[str, str]:
    """What decides a teacher's verdicts beside its model: class, prompts, plain settings."""
    # Not get_prompts(): AnswerRelevancyEvaluator's fails (llama-index-core 0.14).
    return {"teacher": type(teacher).__name__, "settings": settings_hash(vars(teacher))}
