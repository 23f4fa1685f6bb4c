"""A teacher's replies to conversations: several at a time, each kept as it comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning._async import own_work
from llama_index.tuning.datasets.thoughts import without_thoughts
from llama_index.tuning.errors import ReplyError
from llama_index.tuning.generate.calls import Calls
from llama_index.tuning.generate.runs import run_items
from llama_index.tuning.llms.tasks.replies import Conversation, chat_message, messages_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


@own_work
def teacher_replies(
    teacher: LLM,
    conversations: Sequence[Conversation],
    *,
    task: str,
    settings: Mapping[str, Any],
    **run: Any,
) -> list[tuple[str | None, str]]:
    """(reply, "") of each conversation, or (None, why there is none).

    A conversation that occurs twice is asked once.

    Args:
        teacher: any LLM.
        conversations: what it is asked.
        task: what the run's file is for.
        settings: of each call; other settings, and other messages, are asked anew.
        **run: of `run_items`: `output_path`, `num_workers`, `retry_limit`, …
    """
    asked = [messages_of(conversation) for conversation in conversations]
    keys = [json.dumps([messages, dict(settings)], default=repr) for messages in asked]
    messages = {key: [chat_message(m) for m in each] for key, each in zip(keys, asked, strict=True)}

    async def reply(calls: Calls, key: str) -> str:
        async def request() -> str:
            calls.spend()
            response = await calls.in_time(teacher.achat(messages[key], **settings))
            said = without_thoughts(response.message.content or "")
            if not said.strip():
                raise ReplyError("the teacher's reply is empty")
            return said

        text: str = await calls.finish("reply", _id(key), key, request)
        return text

    outcomes = run_items(
        teacher,
        list(messages),
        reply,
        id_of=_id,
        header={"task": task},
        description="Asking the teacher",
        **run,
    )
    failed = {f.id: f"the teacher failed: {f.error}: {f.message}" for f in outcomes.failures}
    left_out = dict.fromkeys(outcomes.not_asked, "max_calls left it out: the teacher was not asked")
    reasons = failed | left_out
    return [(outcomes.results.get(_id(key)), reasons.get(_id(key), "")) for key in keys]


def _id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
