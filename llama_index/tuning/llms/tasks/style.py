"""Output style: wanted outputs, or a teacher that is told the rules, verified by checks.

How hard an English text is to read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.asking.run import run_options
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.chat_faults import example_faults
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.llms.tasks.knowledge import (
    Conversation,
    check_teacher,
    conversation_fault,
    messages_of,
    texts_of,
)
from llama_index.tuning.llms.tasks.task import kept_or_error
from llama_index.tuning.llms.tasks.tools import teacher_replies

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM


Check = Callable[[str], str | None]
"""An output → what is wrong with it, or None."""


@dataclass(frozen=True)
class StyleItem:
    """A request and how it should be answered.

    Attributes:
        messages: a question, or a conversation in OpenAI's shape up to the reply wanted.
        output: the reply; None if a teacher is to write it, or only checks score it.
    """

    messages: Conversation
    output: str | None = None


def matches(pattern: str) -> Check:
    """A check that a regular expression is found in the output.

    Example:
        >>> matches(r"^Dear ")("Hello")
        "'^Dear ' is not found"
    """
    found = _compiled(pattern)
    return lambda output: None if found.search(output) else f"{pattern!r} is not found"


def lacks(pattern: str) -> Check:
    """A check that a regular expression is not found in the output."""
    found = _compiled(pattern)
    return lambda output: f"{pattern!r} is found" if found.search(output) else None


def has_words(least: int = 1, most: int | None = None) -> Check:
    """A check of the number of words, separated by white space.

    Example:
        >>> has_words(1, 3)("one two three four")
        'it has 4 words, not 1 to 3'
    """
    least = whole_number("least", least, 0)
    most = None if most is None else whole_number("most", most, least)

    def check(output: str) -> str | None:
        count = len(output.split())
        if count >= least and (most is None or count <= most):
            return None
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        return f"it has {count} words, not {limits}"

    return check


@plain_arguments
def is_json(schema: Mapping[str, Any] | None = None) -> Check:
    """A check that the output is JSON, nothing around it, and keeps to a JSON schema.

    Example:
        >>> is_json({"type": "object", "required": ["fee"]})("{}")
        "the JSON: 'fee' is a required property"
    """
    try:
        from jsonschema import SchemaError
        from jsonschema.exceptions import best_match
        from jsonschema.validators import validator_for
    except ImportError as exc:
        raise MissingExtraError("is_json", "jsonschema", "llm") from exc
    kind = validator_for(schema or {})
    try:
        kind.check_schema(schema or {})
    except SchemaError as exc:
        raise ValueError(f"schema is no JSON schema: {exc.message}") from exc
    validator = kind(schema or {})

    def check(output: str) -> str | None:
        try:
            value = json.loads(output)
        except ValueError as exc:
            return f"it is no JSON: {exc}"
        error = best_match(validator.iter_errors(value))
        return None if error is None else f"the JSON: {error.message}"

    return check


def reads_at(least: float | None = None, most: float | None = None) -> Check:
    """A check of the reading level of English: the Flesch-Kincaid grade, see `reading.py`.

    Args:
        least: lowest school year; None: any.
        most: highest school year, such as 8 for texts that most people read with ease.

    Example:
        >>> reads_at(most=8)("Remuneration necessitates organisational authorisation.")
        'its reading level is 45.0, not at most 8'
    """
    if least is None and most is None:
        raise ValueError("least or most must be given, got neither")
    for name, value in (("least", least), ("most", most)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
    if least is not None and most is not None and most < least:
        raise ValueError(f"reading levels must be least <= most, got {least} and {most}")
    limits = (
        f"at most {most}"
        if least is None
        else f"at least {least}"
        if most is None
        else f"{least} to {most}"
    )

    def check(output: str) -> str | None:
        try:
            grade = flesch_kincaid_grade(output)
        except ValueError:
            return "it has no English word whose reading level could be told"
        if (least is None or grade >= least) and (most is None or grade <= most):
            return None
        return f"its reading level is {grade:.1f}, not {limits}"

    return check


@own_work
@plain_arguments
def style_dataset(
    items: Sequence[StyleItem],
    checks: Sequence[Check],
    *,
    teacher: LLM | None = None,
    rules: str = "",
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
    **settings: Any,
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations whose outputs pass every check.

    Outputs that are missing are written by a teacher that is told the rules. The rules are not in
    the conversations: the tuned model keeps to them without being told. With an `output_path`,
    each of the teacher's outputs is kept as it comes, and a run that was ended goes on without
    asking again.

    Args:
        items: requests, with outputs or without.
        checks: what an output must pass; called anew in each run.
        teacher: an LLM that writes the outputs that are missing.
        rules: what the teacher is told, as its system prompt.
        output_path: JSON Lines of the conversations, in OpenAI's format; the teacher's outputs
            are kept beside it as `….run.jsonl`.
        run: how the teacher is asked; if a call fails, its row is left out.
        **settings: of each of the teacher's calls, such as `temperature`.

    Returns:
        The sound conversations, and the rows left out with what is wrong with each.

    Raises:
        DatasetError: no row is sound.
        GenerationError: no call to the teacher can succeed.
        RunFileError: `output_path` belongs to another run.

    Example:
        >>> rows = [StyleItem("Fee?", "Five euros."), StyleItem("Fee?", "Umm, five")]
        >>> dataset, dropped = style_dataset(rows, [matches(r"[.]$")])
        >>> len(dataset), dropped
        (1, [Dropped(number=1, reason="'[.]$' is not found")])
    """
    _check_checks(checks)
    faults = [item_fault(item) for item in items]
    outputs = [None if f else item.output for item, f in zip(items, faults, strict=True)]
    if teacher is None:
        if output_path is not None:
            raise ValueError("output_path needs a teacher: it keeps what a teacher wrote")
    else:
        check_teacher(teacher)
        if not isinstance(rules, str) or not rules.strip():
            raise ValueError(f"rules must say how the teacher is to write, got {rules!r}")
        missing = [n for n, item in enumerate(items) if not faults[n] and item.output is None]
        written = teacher_replies(
            teacher,
            [
                [{"role": "system", "content": rules}, *messages_of(items[n].messages)]
                for n in missing
            ],
            task="style",
            settings=settings,
            output_path=output_path,
            run=run_options(run),
        )
        for n, (text, reason) in zip(missing, written, strict=True):
            outputs[n], faults[n] = text, reason or None
    dataset, dropped = _sound(items, faults, outputs, checks)
    if output_path is not None:
        dataset.save_jsonl(output_path, min_examples=1)
    return dataset, dropped


def _sound(
    items: Sequence[StyleItem],
    faults: Sequence[str | None],
    outputs: Sequence[str | None],
    checks: Sequence[Check],
) -> tuple[ChatDataset, list[Dropped]]:
    """The conversations whose outputs pass every check, and the others with their reasons."""
    kept, dropped = list[ChatExample](), list[Dropped]()
    for number, (item, fault, output) in enumerate(zip(items, faults, outputs, strict=True)):
        fault = fault or _output_fault(output, checks)
        if fault is None:
            reply = {"role": "assistant", "content": output}
            example = ChatExample([*messages_of(item.messages), reply])
            fault = "; ".join(example_faults(example)) or None
        if fault is None:
            kept.append(example)
        else:
            dropped.append(Dropped(number, fault))
    return kept_or_error("items", kept, dropped)


@plain_arguments
def style_scorer(
    items: Sequence[StyleItem],
    checks: Sequence[Check] = (),
    *,
    judge: BaseEvaluator | None = None,
    judge_range: tuple[float, float] = (0.0, 1.0),
    workers: int = 4,
    **settings: Any,
) -> Callable[[LLM], NDArray[np.float64]]:
    """A function that scores an LLM on each item, for an engine's `evaluate=` or `protect=`.

    An item's score is the mean over the checks, 1 if passed, and the judge's score.

    Args:
        items: held-out requests.
        checks: what an output should pass.
        judge: any evaluator of LlamaIndex; it gets the request, the reply and, as its
            `reference`, the output wanted if the item has one.
        judge_range: the judge's worst and best score, such as (1, 5).
        workers: requests at a time, if the LLM has no `chat_batch`.
        **settings: of each call, such as `max_tokens`.

    Raises:
        DatasetError: naming every faulty item.
    """
    if judge is None:
        _check_checks(checks)
    else:
        _check_callable(checks)
    if not judge_range[0] < judge_range[1]:
        raise ValueError(f"judge_range must be the worst and the best score, got {judge_range}")
    if not items:
        raise DatasetError("items must hold at least one row, got none")
    faults = [f"row {n}: {fault}" for n, item in enumerate(items) if (fault := item_fault(item))]
    if faults:
        raise DatasetError("the items have faults:", faults)

    def scores(llm: LLM) -> NDArray[np.float64]:
        replies = texts_of(llm, [item.messages for item in items], workers=workers, **settings)
        found = []
        for item, reply in zip(items, replies, strict=True):
            parts = [float(_fault(check, reply) is None) for check in checks]
            if judge is not None:
                parts.append(_judged(judge, judge_range, item, reply))
            found.append(float(np.mean(parts)))
        return np.array(found)

    return scores


def _judged(
    judge: BaseEvaluator, judge_range: tuple[float, float], item: StyleItem, reply: str
) -> float:
    query = "\n\n".join(
        str(m.get("content") or "") for m in messages_of(item.messages) if m["role"] == "user"
    )
    given = {} if item.output is None else {"reference": item.output}
    result = judge.evaluate(query=query, response=reply, **given)
    score = result.score
    if score is None and result.passing is not None:
        return float(result.passing)
    low, high = judge_range
    if result.invalid_result or score is None:
        raise ValueError(f"the judge gave no verdict: {result.invalid_reason or result.feedback!r}")
    if not low <= score <= high:
        raise ValueError(f"judge_range is {low} to {high}, but the judge gave {score}")
    return float((score - low) / (high - low))


def _output_fault(output: str | None, checks: Sequence[Check]) -> str | None:
    if output is None:
        return "it has no output, and there is no teacher to write one"
    if not output.strip():
        return "the output is empty"
    return next((fault for check in checks if (fault := _fault(check, output))), None)


def _fault(check: Check, output: str) -> str | None:
    """What a check says; True for "it passes" would be taken for the opposite."""
    fault = check(output)
    if fault is not None and not (isinstance(fault, str) and fault):
        raise TypeError(f"a check must give None or what is wrong as a text, got {fault!r}")
    return fault


def item_fault(item: Any) -> str | None:
    """What is wrong with an item that was given, or None."""
    if not isinstance(item, StyleItem):
        return f"it must be a StyleItem, got {type(item).__name__}"
    fault = conversation_fault(item.messages)
    if fault:
        return fault
    output: Any = item.output  # what a caller gave is not what the annotation says
    if output is not None and not isinstance(output, str):
        return f"output must be a text, got {type(output).__name__}"
    return None


def _check_checks(checks: Sequence[Any]) -> None:
    if not checks:
        raise ValueError("checks must hold at least one check, got none")
    _check_callable(checks)


def _check_callable(checks: Sequence[Any]) -> None:
    for place, check in enumerate(checks):
        if not callable(check):
            raise TypeError(f"checks[{place}] must be a function of a text, got {check!r}")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as exc:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {exc}") from exc


_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_SENTENCE = re.compile(r"[.!?]+(?=[\s\"'”’)\]]|$)")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(  # make, whole; names; walked: not table, houses, wanted
    r"([^laeiouy]|[aeiouy]l)e$|([^laeiouyscxzgh]|[aeiouy]l)es$|[^aeiouytd]ed$"
)


def flesch_kincaid_grade(text: str) -> float:
    """The school year of the United States that reads such English (Kincaid et al. 1975).

    0.39 · words a sentence + 11.8 · syllables a word - 15.59. Syllables are counted by a rule:
    groups of vowels, without a silent final e. English only; texts of a few words vary widely.

    Raises:
        ValueError: there is no word of Latin letters in it.

    Example:
        >>> round(flesch_kincaid_grade("The cat sat on the mat."), 2)
        -1.45
    """
    words = _WORD.findall(text)
    if not words:
        raise ValueError(f"the text has no English word: {text[:80]!r}")
    sentences = max(1, len(_SENTENCE.findall(text)))
    spoken = sum(map(syllables, words))
    return 0.39 * len(words) / sentences + 11.8 * spoken / len(words) - 15.59


def syllables(word: str) -> int:
    """Syllables of an English word, by rule; at least one.

    Example:
        >>> [syllables(word) for word in ("cat", "table", "make", "houses", "names", "walked")]
        [1, 2, 1, 2, 1, 1]
    """
    plain = re.sub(r"[^a-z]", "", word.lower())
    return max(1, len(_VOWELS.findall(plain)) - bool(_SILENT.search(plain)))
