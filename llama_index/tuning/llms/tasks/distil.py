"""Distillation: a teacher's answers to the application's own prompts, those that pass a filter.

What decides an evaluator's verdicts, as a text: with another one, verdicts are asked anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import check_counts, plain_arguments
from llama_index.tuning._files import PathLike, write_text_atomic
from llama_index.tuning._running import own_work, run_async
from llama_index.tuning.asking.calls import CallFailed, Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure, Outcomes
from llama_index.tuning.asking.run import run_items, run_options
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError, ReplyError
from llama_index.tuning.llms.tasks.knowledge import check_teacher, texts_of

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM


Keep = Callable[[str, str], bool]
"""(prompt, answer) → whether a student should learn it."""

Answer = tuple[str, str | None]
"""What the teacher said, and why it is refused, or None."""


@dataclass(frozen=True)
class DroppedAnswer:
    """An answer that the filter refused.

    Attributes:
        prompt: what was asked.
        answer: what the teacher said.
        reason: why it was refused.
    """

    prompt: str
    answer: str
    reason: str


@dataclass(repr=False)
class DistilledDataset(ChatDataset):
    """A `ChatDataset` that also says what became of the other prompts; engines take it as it is.

    Attributes:
        dropped: answers that the filter refused.
        failures: prompts that got no answer or no verdict, with their errors.
        not_asked: prompts that `max_calls` left out.
        counts: prompts, duplicates, kept, dropped, failed, not_asked and requests.
    """

    dropped: list[DroppedAnswer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@own_work
@plain_arguments
def distillation_dataset(
    prompts: Iterable[str],
    teacher: LLM,
    *,
    keep: BaseEvaluator | Keep | None,
    teacher_prompt: Callable[[str], str] | None = None,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> DistilledDataset:
    """A teacher's answers, filtered, for a student to learn.

    The filter matters more than the teacher: a student learns the teacher's faults as readily as
    the rest. With an `output_path`, each answer and each evaluator's verdict is kept as it comes,
    and a run that was ended goes on without asking again.

    Args:
        prompts: as the application puts them to the student; the same one twice is asked once.
        teacher: any LLM.
        keep: an evaluator of LlamaIndex, which is given prompt and answer and whose `passing`
            decides, asked anew if its class, prompts, model, threshold or other settings
            changed; or a function of (prompt, answer), such as one that runs the SQL, which is
            called anew in each run; None keeps everything.
        teacher_prompt: what the teacher is asked for a student's prompt, with instructions or
            examples that the student is to do without; by default the same.
        output_path: JSON Lines of the conversations, in OpenAI's format; refused answers are
            written beside it as `….dropped.jsonl`.
        run: see `RunOptions`. An evaluator is asked once a run, however often that failed.

    Raises:
        DatasetError: no prompts, one that is no text, or no answer that passes.
        GenerationError: no call can succeed, or the first failure with `on_failure="fail"`.
        RunFileError: `output_path` belongs to another run.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> made = distillation_dataset(
        ...     ["Fee?", "Opening hours?"], MockLLM(), keep=lambda prompt, answer: "Fee" in answer
        ... )
        >>> len(made), made.counts["dropped"]
        (1, 1)
    """
    given = texts_to_ask(prompts)
    outcomes = ask_teacher(
        given,
        teacher,
        keep=keep,
        teacher_prompt=teacher_prompt,
        output_path=output_path,
        run=run_options(run),
    )
    return distilled(given, outcomes, output_path)


@own_work
def ask_teacher(
    prompts: Sequence[str],
    teacher: LLM,
    *,
    keep: BaseEvaluator | Keep | None,
    teacher_prompt: Callable[[str], str] | None,
    output_path: PathLike | None,
    run: RunOptions,
) -> Outcomes[Answer]:
    """The answers with their verdicts, by the id of their prompt; see `distillation_dataset`."""
    check_teacher(teacher)
    judge = _judge(keep)
    if teacher_prompt is not None and not callable(teacher_prompt):
        raise TypeError(f"teacher_prompt must be a function of a prompt, got {teacher_prompt!r}")
    work = _Distil(judge, teacher_prompt, asyncio.Semaphore(run.workers))
    return run_items(
        teacher,
        list(dict.fromkeys(prompts)),
        work.answer,
        id_of=prompt_id,
        header={"task": "distillation"},
        output_path=output_path,
        description="Asking the teacher",
        run=run,
    )


@own_work
def distilled(
    prompts: Sequence[str], outcomes: Outcomes[Answer], output_path: PathLike | None
) -> DistilledDataset:
    """The dataset of these prompts, written if a path is given.

    Raises:
        DatasetError: no answer passes.
    """
    by_id = {prompt_id(prompt): prompt for prompt in prompts}
    answered = [(by_id[id_], *found) for id_, found in outcomes.results.items() if id_ in by_id]
    failures = [failure for failure in outcomes.failures if failure.id in by_id]
    not_asked = [by_id[id_] for id_ in outcomes.not_asked if id_ in by_id]
    dropped = [
        DroppedAnswer(prompt, answer, reason)
        for prompt, answer, reason in answered
        if reason is not None
    ]
    kept = [_example(prompt, answer) for prompt, answer, reason in answered if reason is None]
    if output_path is not None:
        _write_dropped(output_path, dropped)
    if not kept:
        raise DatasetError(
            f"no answer of the teacher is left: {len(dropped)} refused, "
            f"{len(failures)} failed, {len(not_asked)} not asked:",
            [f"{d.prompt[:80]!r}: {d.reason}" for d in dropped]
            + [f"{by_id[f.id][:80]!r}: {f.message}" for f in failures],
        )
    counts = {
        "prompts": len(prompts),
        "duplicates": len(prompts) - len(by_id),
        "kept": len(kept),
        "dropped": len(dropped),
        "failed": len(failures),
        "not_asked": len(not_asked),
        "requests": outcomes.requests,
    }
    made = DistilledDataset(kept, dropped, failures, not_asked, counts)
    if output_path is not None:
        made.save_jsonl(output_path, min_examples=1)
    return made


@plain_arguments
def distillation_scorer(
    prompts: Iterable[str],
    *,
    keep: BaseEvaluator | Keep,
    workers: int = 4,
    **settings: Any,
) -> Callable[[LLM], NDArray[np.float64]]:
    """A function that scores an LLM by the filter: 1 if its answer would be kept.

    An empty answer is a 0.

    Args:
        prompts: held-out prompts.
        keep: as for `distillation_dataset`.
        workers: requests at a time, to the evaluator too.
        **settings: of each call to the LLM, such as `max_tokens`.

    Raises:
        DatasetError: no prompts, or one that is no text.
    """
    judge, asked = _judge(keep), texts_to_ask(prompts)
    check_counts(workers=workers)
    if keep is None:
        raise ValueError("keep is needed to score by: a function or an evaluator, got None")

    async def verdict(slots: asyncio.Semaphore, prompt: str, answer: str) -> float:
        if not answer.strip():
            return 0.0
        async with slots:
            return float(await judge(prompt, answer) is None)

    async def verdicts(answers: Sequence[str]) -> list[float]:
        slots = asyncio.Semaphore(workers)
        pairs = zip(asked, answers, strict=True)
        return await asyncio.gather(*(verdict(slots, *pair) for pair in pairs))

    def scores(llm: LLM) -> NDArray[np.float64]:
        return np.array(run_async(verdicts(texts_of(llm, asked, workers=workers, **settings))))

    return scores


@dataclass(frozen=True)
class _Judge:
    """The filter as one coroutine: (prompt, answer) → why it is refused, or None."""

    keep: Any
    durable: str | None
    """What verdicts are kept under; None: they are not."""

    async def __call__(self, prompt: str, answer: str) -> str | None:
        if self.keep is None:
            return None
        if self.durable is None:
            found = await asyncio.to_thread(self.keep, prompt, answer)
            if not isinstance(found, bool | np.bool_):
                raise TypeError(f"keep must give True or False, got {found!r}")
            return None if found else "keep refused it"
        result = await self.keep.aevaluate(query=prompt, response=answer)
        if result.invalid_result or result.passing is None:
            raise ReplyError(f"the evaluator gave no verdict: {result.invalid_reason}")
        return None if result.passing else f"the evaluator refused it: {result.feedback}"


@dataclass(frozen=True)
class _Distil:
    judge: _Judge
    teacher_prompt: Callable[[str], str] | None
    slots: asyncio.Semaphore

    async def answer(self, calls: Calls, prompt: str) -> Answer:
        """(the teacher's answer, why it is refused)."""
        id_ = prompt_id(prompt)
        asked = prompt if self.teacher_prompt is None else self.teacher_prompt(prompt)
        answer: str = await calls.ask(Question("answer", id_, asked, _answer))
        return answer, await self._verdict(calls, id_, prompt, answer)

    async def _verdict(self, calls: Calls, id_: str, prompt: str, answer: str) -> str | None:
        key = json.dumps([self.judge.durable, prompt, answer])
        known = calls.run.get("keep", id_, key) if self.judge.durable else None
        if known is not None:
            return known[0]  # type: ignore[no-any-return]
        async with self.slots:
            if self.judge.durable is None:
                return await self.judge(prompt, answer)
            try:
                reason = await asyncio.wait_for(self.judge(prompt, answer), calls.options.timeout)
            except Exception as exc:  # whatever an evaluator's LLM raises is this item's failure
                failure = Failure.of(id_, "keep", exc, 1)
                calls.run.fail("keep", id_, key, failure.to_dict())
                raise CallFailed(failure) from exc
        calls.run.put("keep", id_, key, [reason])
        return reason


def _judge(keep: Any) -> _Judge:
    from llama_index.core.evaluation import BaseEvaluator

    if isinstance(keep, BaseEvaluator):
        return _Judge(keep, evaluator_key(keep))
    if keep is not None and not callable(keep):
        raise TypeError(
            "keep must be a LlamaIndex evaluator, a function of (prompt, answer), or None, "
            f"got {keep!r}"
        )
    return _Judge(keep, None)


def texts_to_ask(prompts: Iterable[str]) -> list[str]:
    """The prompts as a list, or what is wrong with them."""
    given = list(prompts)
    faults = [
        f"prompt {n} must be a text that is not blank, got {p!r}"
        for n, p in enumerate(given)
        if not isinstance(p, str) or not p.strip()
    ]
    if faults or not given:
        raise DatasetError("prompts cannot be asked:" if faults else "prompts: none", faults)
    return given


def _answer(reply: str) -> str:
    answer = without_thoughts(reply)
    if not answer.strip():
        raise ReplyError(
            f"the teacher's answer is empty{', but for thoughts' * bool(reply.strip())}"
        )
    return answer


def _example(prompt: str, answer: str) -> ChatExample:
    return ChatExample(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    )


def prompt_id(prompt: str) -> str:
    """A prompt's id in the run's file."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _write_dropped(output_path: PathLike, dropped: list[DroppedAnswer]) -> None:
    rows = (json.dumps(asdict(row), ensure_ascii=False) for row in dropped)
    write_text_atomic(f"{output_path}.dropped.jsonl", "".join(f"{row}\n" for row in rows))


def evaluator_key(evaluator: BaseEvaluator) -> str:
    """Class, prompts, model, thresholds, weights and functions of an evaluator.

    Whatever it holds as an attribute counts, a counter too. Of other objects, and of functions,
    the name is all that is seen: a change inside them is not.
    """
    from llama_index.tuning._checks import identity

    held = {name: _plain(value) for name, value in sorted(vars(evaluator).items())}
    text = json.dumps([_name(type(evaluator)), identity(evaluator), held], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON that is the same in every process."""
    from llama_index.core.llms import LLM

    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, LLM):
        return [_name(type(value)), value.metadata.model_name, getattr(value, "temperature", None)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), [_plain(getattr(value, f.name)) for f in fields(value)]]
    if isinstance(value, Mapping):
        return sorted([str(key), _plain(one)] for key, one in value.items())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
