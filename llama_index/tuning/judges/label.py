"""Verdicts of a teacher – any LlamaIndex evaluator – on many answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import check_counts, identity, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work, progress, run_async
from llama_index.tuning.asking.calls import Calls
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure, Outcomes
from llama_index.tuning.asking.run import run_items, run_options
from llama_index.tuning.datasets.checks import is_number
from llama_index.tuning.datasets.formats.judgments import samples_of
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError, ReplyError
from llama_index.tuning.judges.teacher import (
    FIELDS,
    NEITHER,
    as_given,
    check_samples,
    evaluate,
    llm_of,
    name_of,
    prompts_of,
    source_of,
    turned,
)

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator, EvaluationResult

_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LabelEstimate:
    """What labelling would take, before the first call.

    Attributes:
        evaluations: to make; both orders of a pair are two.
        evaluations_within_budget: at most `max_calls` of them; the numbers below are theirs.
        requests: to the LLM; `None` for an evaluator whose LLM can't be seen from outside.
        prompt_tokens: of those requests, by LlamaIndex's tokenizer.
        reply_tokens: `tokens_per_reply` for each of them.
        cost: in the currency of `prices`; `None` without.
    """

    evaluations: int
    evaluations_within_budget: int
    requests: int | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    cost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        text = f"{self.evaluations_within_budget} of {self.evaluations} evaluations"
        if self.requests is None:
            return f"{text}; the teacher's LLM is not known, so neither are its tokens"
        text += (
            f", {self.requests} requests, about {self.prompt_tokens} prompt and "
            f"{self.reply_tokens} reply tokens"
        )
        return text if self.cost is None else f"{text}, cost {self.cost:.4f}"


@dataclass(frozen=True, kw_only=True)
class LabelledJudgments:
    """What became of each sample.

    Attributes:
        dataset: the verdicts, in the samples' order.
        inconclusive: pairs where the teacher's verdict turned with the order of the answers.
        invalid: evaluations that ended without a verdict: replies that can't be read.
        unread: the answers of those, in the same order, marked `invalid`.
        failures: evaluations that ended in another error.
        not_asked: ids that `max_calls` left out.
        requests: evaluations begun in this run, tries included.
        estimate: of a dry run, what it would take.
    """

    dataset: JudgmentDataset
    inconclusive: list[Judgment] = field(default_factory=list)
    invalid: list[Failure] = field(default_factory=list)
    unread: list[Judgment] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    requests: int = 0
    estimate: LabelEstimate | None = None

    def asked(self) -> JudgmentDataset:
        """The verdicts, and what came back without one, marked `invalid`.

        To measure the teacher by: beside people's verdicts on the same items, its unreadable and
        inconclusive ones count as wrong. A judge learns the same from it as from `dataset`.
        """
        silent = [*self.unread, *self.inconclusive]
        silent = [replace(j, score=None, passing=None, invalid=True) for j in silent]
        return JudgmentDataset([*self.dataset.judgments, *silent])

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {
            "labelled": len(self.dataset),
            "inconclusive": len(self.inconclusive),
            "invalid": len(self.invalid),
            "failures": len(self.failures),
            "not_asked": len(self.not_asked),
            "requests": self.requests,
        }


@own_work
@plain_arguments
def label_judgments(
    samples: Any,
    teacher: BaseEvaluator,
    *,
    predictions: Any = None,
    output_path: PathLike | None = None,
    both_orders: bool = False,
    dry_run: bool = False,
    tokens_per_reply: int = 100,
    prices: tuple[float, float] | None = None,
    run: RunOptions | None = None,
) -> LabelledJudgments:
    """Let an evaluator judge answers, to tune a judge on its verdicts.

    Evaluations run concurrently and are kept one by one: started again after an error or a
    kill, it goes on where it was, and only those in flight are asked for twice. Samples that are
    alike are judged once.

    Args:
        samples: judgments without verdicts, plain objects with their fields (a verdict in them
            is not looked at), or a `LabelledRagDataset`.
        teacher: any LlamaIndex evaluator.
        predictions: of a `LabelledRagDataset`, the answers to judge; else its own answers are.
        output_path: where the verdicts are written (JSON Lines), with the run file beside it.
        both_orders: judge each pair in both orders, as two verdicts: `flip_rate` of the dataset.
        dry_run: ask nothing; the result's `estimate` says what it would take.
        tokens_per_reply: for the estimate; 5 for yes or no, 100 to 300 with reasons.
        prices: for the estimate, of a million prompt and a million reply tokens.
        run: see `RunOptions`. `max_calls` counts evaluations begun, tries included: one may send
            several requests (`PairwiseComparisonEvaluator` by default sends two); a dry run says.

    Raises:
        DatasetError: naming each sample that the teacher can't judge, before any call.
        GenerationError: no call can succeed (a wrong key), or the first failure with `"fail"`.

    Example:
        >>> from llama_index.core.evaluation import FaithfulnessEvaluator
        >>> from llama_index.core.llms import MockLLM
        >>> sample = {"response": "It is 5 euros.", "contexts": ["The fee is 5 euros."]}
        >>> plan = label_judgments([sample], FaithfulnessEvaluator(MockLLM()), dry_run=True)
        >>> plan.estimate.requests
        1
    """
    _check(teacher, both_orders, tokens_per_reply, prices)
    run = run_options(run)
    items = _items(samples_of(samples, predictions), teacher, both_orders)
    if dry_run:
        estimate = _estimate(items, teacher, run, tokens_per_reply, prices)
        return LabelledJudgments(dataset=JudgmentDataset([]), estimate=estimate)
    name = name_of(teacher)

    async def judge(calls: Calls, item: _Item) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            calls.spend()
            try:
                return _verdict(await calls.in_time(evaluate(teacher, item.sample)))
            except ReplyError:
                raise
            except ValueError as exc:  # what parsers raise on a reply that they can't read
                raise ReplyError(str(exc) or type(exc).__name__) from exc

        found: dict[str, Any] = await calls.finish("judge", item.id, item.content, once)
        return found

    outcomes = run_items(
        llm_of(teacher),
        list(items.values()),
        judge,
        id_of=lambda item: item.id,
        header={"task": "judgments", **identity(teacher)},
        output_path=output_path,
        description="Judging",
        run=run,
    )
    found = _sorted_out(items, outcomes, name, type(teacher).__name__)
    if output_path is not None:
        found.dataset.save_jsonl(output_path)
    return found


@dataclass(frozen=True)
class _Item:
    """One evaluation: a sample in one order."""

    id: str
    content: str
    sample: Judgment


def _items(
    samples: Sequence[Judgment], teacher: BaseEvaluator, both_orders: bool
) -> dict[str, _Item]:
    """By id, a hash of the content: alike samples are one, in every process."""
    if not samples:
        raise DatasetError("there are no samples to judge")
    check_samples(samples, teacher)
    if both_orders:
        single = [number for number, s in enumerate(samples) if s.second_response is None]
        if single:
            raise DatasetError(
                "both_orders needs pairs:", [f"sample {n} has no second_response" for n in single]
            )
    items: dict[str, _Item] = {}
    for sample in samples:
        for shown in (sample, turned(sample)) if both_orders else (sample,):
            id_, content = content_id(shown)
            items.setdefault(id_, _Item(id_, content, shown))
    return items


def content_id(sample: Judgment) -> tuple[str, str]:
    """An id that depends on what is judged alone, and the text it is a hash of."""
    content = json.dumps({name: getattr(sample, name) for name in FIELDS}, default=list)
    return hashlib.sha256(content.encode()).hexdigest()[:16], content


def _verdict(result: EvaluationResult) -> dict[str, Any]:
    """What is kept of a result; one without a verdict is asked for again."""
    result = as_given(result)
    if result.invalid_result:
        raise ReplyError(result.invalid_reason or "the teacher gave an invalid result")
    if result.passing is None and result.score is None:
        raise ReplyError(f"no verdict in the teacher's reply {(result.feedback or '')[:200]!r}")
    if result.feedback == "Empty Response":  # a synthesizer's text for an empty reply
        raise ReplyError("the teacher's reply is empty")
    return {
        "score": result.score,
        "passing": result.passing,
        "feedback": result.feedback,
        "inconclusive": source_of(result) == NEITHER,
    }


def _sorted_out(
    items: Mapping[str, _Item], outcomes: Outcomes[dict[str, Any]], source: str, judge: str
) -> LabelledJudgments:
    verdicts: list[Judgment] = []
    inconclusive: list[Judgment] = []
    for id_, row in outcomes.results.items():
        judgment = replace(
            items[id_].sample,
            score=row["score"],
            passing=row["passing"],
            feedback=row["feedback"],
            source=source,
            judge=judge,
        )
        (inconclusive if row["inconclusive"] else verdicts).append(judgment)
    kind = ReplyError.__name__
    invalid = [failure for failure in outcomes.failures if failure.error == kind]
    return LabelledJudgments(
        dataset=JudgmentDataset(verdicts),
        inconclusive=inconclusive,
        invalid=invalid,
        unread=[
            replace(items[failure.id].sample, source=source, judge=judge, invalid=True)
            for failure in invalid
        ],
        failures=[failure for failure in outcomes.failures if failure.error != kind],
        not_asked=outcomes.not_asked,
        requests=outcomes.requests,
    )


def _estimate(
    items: Mapping[str, _Item],
    teacher: BaseEvaluator,
    run: RunOptions,
    tokens_per_reply: int,
    prices: tuple[float, float] | None,
) -> LabelEstimate:
    asked = list(items.values())[: run.max_calls]
    double = prompts_of(teacher)
    if double is None:
        return LabelEstimate(evaluations=len(items), evaluations_within_budget=len(asked))
    requests, prompt_tokens = run_async(_rehearse(*double, asked, run.show_progress))
    replies = tokens_per_reply * requests
    cost = None
    if prices is not None:
        cost = (prompt_tokens * prices[0] + replies * prices[1]) / _MILLION
    return LabelEstimate(
        evaluations=len(items),
        evaluations_within_budget=len(asked),
        requests=requests,
        prompt_tokens=prompt_tokens,
        reply_tokens=replies,
        cost=cost,
    )


async def _rehearse(
    double: BaseEvaluator, notes: list[str], items: Iterable[_Item], show_progress: bool
) -> tuple[int, int]:
    """Requests and prompt tokens of the evaluations, counted on a teacher that asks nobody."""
    from llama_index.core import get_tokenizer

    tokenizer = get_tokenizer()
    requests = tokens = 0
    for item in progress(list(items), show_progress, "Estimating"):
        try:
            await evaluate(double, item.sample)
        except Exception:  # the rehearsed reply is no reply to every evaluator's parser
            if not notes:  # it did not get so far as to ask
                raise
        requests += len(notes)
        tokens += sum(len(tokenizer(prompt)) for prompt in notes)
        notes.clear()
    return requests, tokens


def _check(
    teacher: Any,
    both_orders: bool,
    tokens_per_reply: int,
    prices: tuple[float, float] | None,
) -> None:
    from llama_index.core.evaluation import BaseEvaluator

    if not isinstance(teacher, BaseEvaluator):
        raise TypeError(f"teacher must be a LlamaIndex BaseEvaluator, got {type(teacher).__name__}")
    if both_orders and getattr(teacher, "_enforce_consensus", False):
        raise ValueError(
            "both_orders asks for both orders itself; give a teacher with enforce_consensus=False"
        )
    check_counts(tokens_per_reply=tokens_per_reply)
    if prices is not None and (
        not isinstance(prices, (tuple, list))
        or len(prices) != 2
        or not all(is_number(price) and price >= 0 for price in prices)
    ):
        raise ValueError(f"prices must be two numbers >= 0, of prompt and reply, got {prices!r}")
