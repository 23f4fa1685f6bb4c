"""One run: items worked on concurrently, with a file that keeps every finished call."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.tuning._checks import folder_path, of_type
from llama_index.tuning._files import PathLike, place_of_file
from llama_index.tuning._running import run_async
from llama_index.tuning.asking.calls import Calls
from llama_index.tuning.asking.options import RunOptions
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
    run: RunOptions,
) -> Outcomes[R]:
    """`work` on every item, with `Calls` to ask through.

    Args:
        llm: whom `work` asks; `None` if it asks by itself.
        id_of: an item's id, distinct.
        header: what the run is, beside the model: prompt and options that decide its results.
        output_path: of the result; the run file lies beside it.
        description: of the bar.
        run: how it is asked.
    """
    run_file = run_file_of(output_path)
    head = dict(header)
    if llm is not None:
        head["model"] = f"{llm.class_name()}/{llm.metadata.model_name}"
    with RunFile(run_file, head, sync_every=run.save_every) as kept:
        calls = Calls(llm, kept, run)
        outcomes = run_async(
            calls.map(items, partial(work, calls), id_of=id_of, description=description)
        )
    outcomes.requests = calls.sent
    return outcomes


def run_options(run: RunOptions | None) -> RunOptions:
    """The options given, or the defaults."""
    return RunOptions() if run is None else of_type("run", run, RunOptions, "RunOptions")


def default_llm(llm: LLM | None) -> LLM:
    """The LLM given, else LlamaIndex's `Settings.llm`."""
    from llama_index.core.base.llms.base import BaseLLM

    if isinstance(llm, BaseLLM):
        return llm
    if llm is not None:
        raise TypeError(f"llm must be an LLM of LlamaIndex, got {llm!r}")
    from llama_index.core import Settings

    return Settings.llm


def turn(names: Sequence[str], text: str) -> str | None:
    """One of the names, decided by the text alone: the same in every run."""
    if not names:
        return None
    return names[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % len(names)]


def run_file_of(output_path: PathLike | None) -> Path | None:
    """The run file of an output; for those who work before they run, before that work.

    Raises:
        RunFileError: a file is at `output_path` that no run wrote.
    """
    if output_path is None:
        return None
    folder_path("output_path", output_path)
    path = Path(f"{os.fsdecode(output_path)}.run.jsonl")
    if Path(output_path).exists() and not path.exists():
        raise RunFileError(
            f"output_path: {output_path} exists and no run file lies beside it; choose another "
            "path, it would be overwritten"
        )
    place_of_file(output_path)
    return path
