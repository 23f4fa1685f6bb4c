"""Each task in one call: verified, split, and scored on what is held out.

Every function gives an `LLMTask`, whose parts any LLM engine takes. Beside the task's rows it
takes `held_out`, the share of the requests to measure on or the rows to measure on, and `seed`, of
that split; every other argument is that of the function which makes the dataset or the score, and
is described there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Dropped, QuestionAnswer
from llama_index.tuning.asking.run import run_options
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.calls import CallItem, call_dataset, call_scorer
from llama_index.tuning.llms.tasks.code import Check, check_scorer, checked_dataset
from llama_index.tuning.llms.tasks.distil import (
    DistilledDataset,
    Keep,
    ask_teacher,
    distillation_scorer,
    distilled,
    prompt_id,
    texts_to_ask,
)
from llama_index.tuning.llms.tasks.knowledge import knowledge_dataset, knowledge_scorer, messages_of
from llama_index.tuning.llms.tasks.sql import execution_scorer, sql_dataset
from llama_index.tuning.llms.tasks.style import (
    Check as StyleCheck,
    StyleItem,
    item_fault,
    style_dataset,
    style_scorer,
)
from llama_index.tuning.llms.tasks.task import (
    HeldOut,
    LLMTask,
    asked_alike,
    check_share,
    kept_or_error,
    rows_of,
    split,
    task_of,
)
from llama_index.tuning.llms.tasks.tools import AnyTool

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate


@plain_arguments
def sql_task(
    rows: Iterable[Mapping[str, Any]],
    database: Any,
    *,
    held_out: HeldOut = 0.2,
    prompt: BasePromptTemplate | None = None,
    tables: Sequence[str] | None = None,
    time_limit: float = 5.0,
    workers: int = 4,
    max_tokens: int | None = None,
    seed: int = 0,
) -> LLMTask:
    """Text-to-SQL: queries that run are learnt, held-out questions scored by what is found.

    The arguments: see `sql_dataset` and `execution_scorer`. Give a `prompt` of your own to
    `NLSQLTableQueryEngine` too.

    Args:
        held_out: share of the questions to measure on, or the rows to measure on.
        seed: of the split.

    Raises:
        DatasetError: see `sql_dataset` and `execution_scorer`; or the rows cannot be split.

    Example:
        task = sql_task(rows, "app.sqlite", prompt=prompt, max_tokens=200)
        engine = HuggingFaceFinetuneEngine(task.dataset, model, evaluate=task.evaluate)
    """
    shared: dict[str, Any] = {"prompt": prompt, "tables": tables, "time_limit": time_limit}
    score: dict[str, Any] = {"workers": workers, "max_tokens": max_tokens}
    return task_of(
        rows,
        lambda given: sql_dataset(given, database, **shared),
        lambda given: execution_scorer(given, database, **shared, **score),
        request=lambda row: _field(row, "question"),
        held_out=held_out,
        seed=seed,
    )


@plain_arguments
def check_task(
    rows: Iterable[Mapping[str, Any]],
    *,
    check: Check,
    held_out: HeldOut = 0.2,
    workers: int = 4,
    max_tokens: int | None = None,
    seed: int = 0,
) -> LLMTask:
    """Any language that a program checks: answers that pass are learnt, held-out ones scored.

    The arguments: see `checked_dataset` and `check_scorer`.

    Args:
        held_out: share of the prompts to measure on, or the rows to measure on.
        seed: of the split.

    Raises:
        DatasetError: see `checked_dataset` and `check_scorer`; or the rows cannot be split.

    Example:
        >>> rows = [{"prompt": f"{n}+1?", "answer": str(n + 1)} for n in range(10)]
        >>> task = check_task(rows, check=lambda row: None if row["answer"].isdigit() else "no")
        >>> len(task.dataset), len(task.held_out)
        (8, 2)
    """
    return task_of(
        rows,
        lambda given: checked_dataset(given, check=check),
        lambda given: check_scorer(given, check=check, workers=workers, max_tokens=max_tokens),
        request=lambda row: _field(row, "prompt"),
        held_out=held_out,
        seed=seed,
    )


@plain_arguments
def call_task(
    items: Sequence[CallItem],
    tools: Sequence[AnyTool],
    *,
    held_out: HeldOut = 0.2,
    score: Literal["call", "name", "valid"] = "call",
    workers: int = 4,
    seed: int = 0,
    **settings: Any,
) -> LLMTask:
    """Function calling: calls that keep to the schemas are learnt, held-out requests scored.

    The arguments: see `call_dataset` and `call_scorer`.

    Args:
        held_out: share of the requests to measure on, or the items to measure on. What follows
            after a tool's result stays with its request.
        seed: of the split.
        **settings: of each scored call, such as `max_tokens`.

    Raises:
        DatasetError: see `call_dataset` and `call_scorer`; or the items cannot be split.
    """
    return task_of(
        items,
        lambda given: call_dataset(given, tools),
        lambda given: call_scorer(given, tools, score=score, workers=workers, **settings),
        request=request_of,
        held_out=held_out,
        seed=seed,
    )


@plain_arguments
def knowledge_task(
    rows: Sequence[QuestionAnswer],
    *,
    held_out: HeldOut = 0.2,
    metric: Literal["f1", "exact"] = "f1",
    contexts: Sequence[str] = (),
    irrelevant: int = 2,
    min_support: float = 0.0,
    prompt: BasePromptTemplate | None = None,
    workers: int = 4,
    seed: int = 0,
    **settings: Any,
) -> LLMTask:
    """Answering from contexts: supported answers are learnt, held-out questions scored.

    The arguments: see `knowledge_dataset` and `knowledge_scorer`.

    Args:
        contexts: empty: the sources of all rows, both sides.
        held_out: share of the questions to measure on, or the rows to measure on.
        seed: of the split and of the contexts.
        **settings: of each scored call, such as `max_tokens`.

    Raises:
        DatasetError: see `knowledge_dataset` and `knowledge_scorer`; or the rows cannot be split.
    """
    check_share(held_out)
    given = rows_of(rows)
    held = [] if isinstance(held_out, float) else list(held_out)
    pool = contexts or [r.context for r in (*given, *held) if isinstance(r, QuestionAnswer)]
    shared: dict[str, Any] = {
        "contexts": pool, "irrelevant": irrelevant, "prompt": prompt, "seed": seed
    }  # fmt: skip
    return task_of(
        given,
        lambda some: knowledge_dataset(some, min_support=min_support, **shared),
        lambda some: knowledge_scorer(some, metric=metric, workers=workers, **shared, **settings),
        request=lambda row: asked_alike(getattr(row, "question", row)),
        held_out=held_out,
        seed=seed,
    )


@plain_arguments
def style_task(
    items: Sequence[StyleItem],
    checks: Sequence[StyleCheck],
    *,
    held_out: HeldOut = 0.2,
    judge: BaseEvaluator | None = None,
    judge_range: tuple[float, float] = (0.0, 1.0),
    teacher: LLM | None = None,
    rules: str = "",
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
    workers: int = 4,
    seed: int = 0,
    **settings: Any,
) -> LLMTask:
    """Output style: outputs that pass every check are learnt, held-out requests scored by them.

    A teacher is asked about what is learnt only; a held-out request needs no output. The
    arguments: see `style_dataset` and `style_scorer`.

    Args:
        held_out: share of the requests to measure on, or the items to measure on.
        seed: of the split.
        **settings: of each call to the LLM that is scored, such as `max_tokens`.

    Raises:
        DatasetError: see `style_dataset` and `style_scorer`; or the items cannot be split.
    """
    given = rows_of(items)
    check_share(held_out)
    faults = [item_fault(item) for item in given]
    sound = [n for n, fault in enumerate(faults) if fault is None]
    if not sound:
        kept_or_error("items", [], [Dropped(n, fault or "") for n, fault in enumerate(faults)])
    sides = split([given[n] for n in sound], request_of, held_out, seed)
    score = style_scorer(
        sides.held_out, checks, judge=judge, judge_range=judge_range, workers=workers, **settings
    )
    test = set(sound) - {sound[place] for place in sides.train}
    train = [n for n in range(len(given)) if n not in test]
    dataset, dropped = style_dataset(
        [given[n] for n in train],
        checks,
        teacher=teacher,
        rules=rules,
        output_path=output_path,
        run=run,
    )
    gone = [Dropped(train[one.number], one.reason) for one in dropped]
    gone += [Dropped(sound[one.number], one.reason) for one in sides.dropped]
    return LLMTask(dataset, score, sides.held_out, sorted(gone, key=lambda one: one.number))


@plain_arguments
def distillation_task(
    prompts: Iterable[str],
    teacher: LLM,
    *,
    keep: BaseEvaluator | Keep,
    held_out: HeldOut = 0.2,
    teacher_prompt: Callable[[str], str] | None = None,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
    seed: int = 0,
    **settings: Any,
) -> LLMTask:
    """Distillation: a teacher's filtered answers are learnt, held-out prompts scored by the filter.

    The teacher answers the held-out prompts too: `peers` has its scores, so that the report says
    how far the student is from it. Nothing of these answers is learnt or written to `output_path`.

    The arguments: see `distillation_dataset`. The filter `keep` cannot be None here: it scores.

    Args:
        held_out: share of the prompts to measure on, or the prompts to measure on. Those that got
            no answer of the teacher, or no verdict, are left out.
        run: how the teacher is asked; `num_workers` also of the requests to the LLM that is scored.
        seed: of the split.
        **settings: of each call to the LLM that is scored, such as `max_tokens`.

    Raises:
        DatasetError: see `distillation_dataset`; or the prompts cannot be split.
        GenerationError: no call can succeed.
        RunFileError: `output_path` belongs to another run.
    """
    given, run = texts_to_ask(prompts), run_options(run)
    check_share(held_out)
    if keep is None:
        raise ValueError("keep is needed to score by: a function or an evaluator, got None")
    sides = split(given, asked_alike, held_out, seed)
    test = texts_to_ask(dict.fromkeys(sides.held_out))
    train = [given[n] for n in sides.train]
    outcomes = ask_teacher(
        [*train, *test],
        teacher,
        keep=keep,
        teacher_prompt=teacher_prompt,
        output_path=output_path,
        run=run,
    )
    dataset = distilled(train, outcomes, output_path)
    known = [prompt for prompt in test if prompt_id(prompt) in outcomes.results]
    if not known:
        raise DatasetError("held_out: the teacher has answered none of these prompts")
    verdicts = [outcomes.results[prompt_id(prompt)][1] for prompt in known]
    return LLMTask(
        dataset,
        distillation_scorer(known, keep=keep, workers=run.workers, **settings),
        known,
        [*sides.dropped, *_not_learnt(given, sides.train, dataset)],
        {"teacher": np.array([float(reason is None) for reason in verdicts])},
    )


def request_of(item: Any) -> str:
    """What an item asks: its messages up to the first reply, as a key."""
    messages = getattr(item, "messages", None)
    if isinstance(messages, str):
        return str(asked_alike(messages))
    opening = []
    for message in messages_of(messages or []):
        if message.get("role") == "assistant":
            break
        opening.append(message)
    if len(opening) == 1 and opening[0].get("role") == "user":
        return str(asked_alike(opening[0].get("content")))
    return json.dumps(opening, sort_keys=True, default=repr)


def _field(row: Any, name: str) -> Any:
    return asked_alike(row.get(name) if isinstance(row, Mapping) else row)


def _not_learnt(
    prompts: Sequence[str], train: Sequence[int], made: DistilledDataset
) -> list[Dropped]:
    """The prompts to learn from that came to nothing, and why."""
    reasons = {one.prompt: one.reason for one in made.dropped}
    failed = {one.id: f"it failed: {one.error}: {one.message}" for one in made.failures}
    not_asked = set(made.not_asked)
    found = []
    for number in train:
        prompt = prompts[number]
        reason = reasons.get(prompt) or failed.get(prompt_id(prompt))
        if reason is None and prompt in not_asked:
            reason = "max_calls left it out: the teacher was not asked"
        if reason is not None:
            found.append(Dropped(number, reason))
    return found
