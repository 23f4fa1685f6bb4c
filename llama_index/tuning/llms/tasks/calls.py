"""Function calling and structured output: verified conversations, and scores in BFCL's manner.

Accepted values, and strings compared without case, spaces and punctuation, are those of the
Berkeley Function Calling Leaderboard (Patil et al. 2025, its "AST" checker).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.asking.calls import at_once
from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.chat_faults import example_faults
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.knowledge import (
    Conversation,
    chat_message,
    conversation_fault,
    messages_of,
)
from llama_index.tuning.llms.tasks.task import kept_or_error
from llama_index.tuning.llms.tasks.tools import AnyTool, Offered, argument_fault, offered_tools

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.llms.llm import ToolSelection

_LOOSE = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True)
class ExpectedCall:
    """A call as it should be.

    Attributes:
        name: the function.
        arguments: for each argument the values accepted, the best one first: that one is
            learnt. An empty string among them means that the argument may be left out.
    """

    name: str
    arguments: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class CallItem:
    """A request and the calls that answer it.

    Attributes:
        messages: a question, or a conversation in OpenAI's shape up to the reply wanted.
        calls: the calls wanted, in any order; none: no tool fits.
        reply: what to say if no tool fits; needed for learning, not for scoring.
        tools: names of the tools offered; None: all.
    """

    messages: Conversation
    calls: Sequence[ExpectedCall] = ()
    reply: str | None = None
    tools: Sequence[str] | None = None


@dataclass(frozen=True)
class CallScores:
    """Scores of each item, 1 or 0.

    Attributes:
        name: the right functions were called, or none if none fits.
        call: and every argument is among the values accepted.
        valid: every call keeps to the schema of a tool that was offered.
    """

    name: NDArray[np.float64]
    call: NDArray[np.float64]
    valid: NDArray[np.float64]


@plain_arguments
def call_dataset(
    items: Sequence[CallItem], tools: Sequence[AnyTool]
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations that end in the calls wanted, each verified against the tools' schemas.

    Args:
        items: requests with their calls.
        tools: JSON schemas, LlamaIndex tools, or pydantic classes to fill in.

    Returns:
        The sound conversations, and the rows left out with what is wrong with each.

    Raises:
        DatasetError: a fault in the tools, or no row is sound.

    Example:
        >>> fee = {"type": "function", "function": {"name": "fee", "parameters": {
        ...     "type": "object", "properties": {"euros": {"type": "integer"}}}}}
        >>> good = CallItem("Pay 5 euros", [ExpectedCall("fee", {"euros": [5]})])
        >>> bad = CallItem("Pay five", [ExpectedCall("fee", {"euros": ["five"]})])
        >>> dataset, dropped = call_dataset([good, bad], [fee])
        >>> len(dataset), dropped[0].reason
        (1, "fee: arguments['euros']: 'five' is not of type 'integer'")
    """
    offered = offered_tools(tools)
    kept, dropped = list[ChatExample](), list[Dropped]()
    for number, item in enumerate(items):
        fault = _item_fault(item, offered)
        if fault is None and not item.calls and not item.reply:
            fault = "it calls no tool and has no reply to learn"
        example = None if fault else _example(item, offered)
        if example is not None:
            fault = "; ".join(example_faults(example)) or _history_fault(example, offered)
        if example is None or fault:
            dropped.append(Dropped(number, fault or ""))
        else:
            kept.append(example)
    return kept_or_error("items", kept, dropped)


@plain_arguments
def call_scorer(
    items: Sequence[CallItem],
    tools: Sequence[AnyTool],
    *,
    score: Literal["call", "name", "valid"] = "call",
    workers: int = 4,
    **settings: Any,
) -> Callable[[LLM], NDArray[np.float64]]:
    """A function that scores an LLM on each item, for an engine's `evaluate=` or `protect=`.

    Args:
        items: held-out requests with their calls.
        tools: as for `call_dataset`.
        score: which of `CallScores`.
        workers: requests at a time, if the LLM has no `chat_batch`.
        **settings: of each call, such as `max_tokens`.

    Raises:
        DatasetError: naming every faulty item; none is left out of a score in silence.
    """
    if score not in ("call", "name", "valid"):
        raise ValueError(f"score must be 'call', 'name' or 'valid', got {score!r}")
    _check_items(items, offered_tools(tools))

    def scores(llm: LLM) -> NDArray[np.float64]:
        found = call_scores(llm, items, tools, workers=workers, **settings)
        result: NDArray[np.float64] = getattr(found, score)
        return result

    return scores


@plain_arguments
def call_scores(
    llm: LLM,
    items: Sequence[CallItem],
    tools: Sequence[AnyTool],
    *,
    workers: int = 4,
    **settings: Any,
) -> CallScores:
    """What an LLM's calls are worth, item by item; see `call_scorer` for the arguments.

    Raises:
        DatasetError: naming every faulty item.
        TypeError: the LLM cannot call functions.
    """
    from llama_index.core.llms.function_calling import FunctionCallingLLM

    offered = offered_tools(tools)
    _check_items(items, offered)
    if not isinstance(llm, FunctionCallingLLM) or not llm.metadata.is_function_calling_model:
        raise TypeError(f"llm must be able to call functions, got {type(llm).__name__}")
    found = _calls_of(llm, items, offered, workers, settings)
    name, call, valid = (np.zeros(len(items)) for _ in range(3))
    for place, (item, calls) in enumerate(zip(items, found, strict=True)):
        wanted = sorted(expected.name for expected in item.calls)
        name[place] = sorted(made.tool_name for made in calls) == wanted
        call[place] = name[place] and _all_matched(calls, item.calls)
        names = item.tools if item.tools is not None else list(offered)
        valid[place] = all(
            made.tool_name in names
            and argument_fault(offered[made.tool_name], made.tool_kwargs) is None
            for made in calls
        )
    return CallScores(name, call, valid)


def value_accepted(value: Any, accepted: Sequence[Any]) -> bool:
    """Whether a value is among those accepted, strings without case and punctuation.

    Example:
        >>> value_accepted("new york", ["New-York"]), value_accepted(3, [3.0])
        (True, True)
        >>> value_accepted(True, [1]), value_accepted("3", [3])
        (False, False)
    """
    return any(_same(value, one) for one in accepted)


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return _plain(value) == _plain(wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, list) and isinstance(wanted, list | tuple):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, Mapping):
        return value.keys() == wanted.keys() and all(_same(value[k], wanted[k]) for k in value)
    return bool(value == wanted)


def _plain(text: str) -> str:
    # What is nothing but punctuation is compared as it stands.
    return _LOOSE.sub("", text).lower().replace("'", '"') or text


def _matches(made: ToolSelection, wanted: ExpectedCall) -> bool:
    given = made.tool_kwargs
    if made.tool_name != wanted.name or any(key not in wanted.arguments for key in given):
        return False
    return all(
        value_accepted(given[key], [value for value in accepted if not _absent(value)])
        if key in given
        else any(map(_absent, accepted))
        for key, accepted in wanted.arguments.items()
    )


def _all_matched(made: Sequence[ToolSelection], wanted: Sequence[ExpectedCall]) -> bool:
    """Whether each call wanted has a call of its own: a perfect matching, in any order."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if len(made) != len(wanted):
        return False
    if not made:
        return True
    fits = csr_array(np.array([[_matches(one, call) for call in wanted] for one in made]))
    return bool((maximum_bipartite_matching(fits) >= 0).all())


def _absent(value: Any) -> bool:
    return isinstance(value, str) and value == ""


def _calls_of(
    llm: Any,
    items: Sequence[CallItem],
    offered: Mapping[str, Offered],
    workers: int,
    settings: Mapping[str, Any],
) -> list[list[ToolSelection]]:
    asked = [[chat_message(m) for m in messages_of(item.messages)] for item in items]
    names = [tuple(item.tools if item.tools is not None else offered) for item in items]
    responses: dict[int, Any] = {}
    if hasattr(llm, "chat_batch"):
        for group in dict.fromkeys(names):
            places = [place for place, name in enumerate(names) if name == group]
            records = [offered[name].record for name in group]
            replies = llm.chat_batch(
                [asked[place] for place in places], batch_size=64, tools=records, **settings
            )
            responses |= dict(zip(places, replies, strict=True))
    else:

        def ask(place: int) -> Any:
            return llm.chat_with_tools(
                [offered[name].tool for name in names[place]],
                chat_history=asked[place],
                allow_parallel_tool_calls=True,
                **settings,
            )

        responses = dict(enumerate(at_once(ask, range(len(items)), workers)))
    return [
        llm.get_tool_calls_from_response(responses[place], error_on_no_tool_call=False)
        for place in range(len(items))
    ]


def _check_items(items: Sequence[CallItem], offered: Mapping[str, Offered]) -> None:
    if not items:
        raise DatasetError("items must hold at least one row, got none")
    faults = [
        f"row {number}: {fault}"
        for number, item in enumerate(items)
        if (fault := _item_fault(item, offered))
    ]
    if faults:
        raise DatasetError("the items have faults:", faults)


def _item_fault(item: Any, offered: Mapping[str, Offered]) -> str | None:
    """The first thing wrong with a row, or None."""
    if not isinstance(item, CallItem):
        return f"it must be a CallItem, got {type(item).__name__}"
    fault = conversation_fault(item.messages)
    if fault:
        return fault
    names = item.tools if item.tools is not None else list(offered)
    if isinstance(names, str):
        return f"tools must be a list of names, got {names!r}"
    unknown = [name for name in names if name not in offered]
    if unknown:
        return f"tools: {unknown[0]!r} is none of the tools"
    if item.calls and item.reply:
        return "it has both calls and a reply"
    return next((f for call in item.calls if (f := _call_fault(call, names, offered))), None)


def _call_fault(call: Any, names: Sequence[str], offered: Mapping[str, Offered]) -> str | None:
    if not isinstance(call, ExpectedCall):
        return f"calls must hold ExpectedCalls, got {type(call).__name__}"
    if call.name not in names:
        return f"{call.name!r} is none of the tools offered: {', '.join(names) or 'none'}"
    for key, accepted in call.arguments.items():
        if isinstance(accepted, str) or not isinstance(accepted, Sequence) or not accepted:
            return f"{call.name}: {key} needs a list of accepted values, got {accepted!r}"
    best = _best(call)
    # The arguments learnt, then every other value in its place.
    variants = [best] + [
        {**best, key: value}
        for key, accepted in call.arguments.items()
        for value in accepted[1:]
        if not _absent(value)
    ]
    faults = (argument_fault(offered[call.name], arguments) for arguments in variants)
    return next((fault for fault in faults if fault), None)


def _best(call: ExpectedCall) -> dict[str, Any]:
    """The arguments to learn: each one's first value, unless it is to be left out."""
    return {key: values[0] for key, values in call.arguments.items() if not _absent(values[0])}


def _example(item: CallItem, offered: Mapping[str, Offered]) -> ChatExample:
    names = item.tools if item.tools is not None else list(offered)
    calls = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(_best(call), ensure_ascii=False),
            },
        }
        for place, call in enumerate(item.calls)
    ]
    reply: dict[str, Any] = {"role": "assistant", "content": item.reply}
    if calls:
        reply = {"role": "assistant", "content": None, "tool_calls": calls}
    return ChatExample(
        [*messages_of(item.messages), reply], [offered[name].record for name in names]
    )


def _history_fault(example: ChatExample, offered: Mapping[str, Offered]) -> str | None:
    """What is wrong with a call made earlier in the conversation: it is learnt as well."""
    for message in example.messages[:-1]:
        for call in message.get("tool_calls") or []:
            function = call["function"]
            if function["name"] not in offered:
                return f"{function['name']!r} is none of the tools"
            fault = argument_fault(offered[function["name"]], json.loads(function["arguments"]))
            if fault:
                return fault
    return None
