"""A reply without what its writer thought before it."""

from __future__ import annotations

import re

_THOUGHT = re.compile(
    r"<(think|thinking|thought|reasoning|reflection)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE
)
_OPEN_BEFORE = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_CHANNEL = re.compile(r"\A.*<\|channel\|>\s*final\s*<\|message\|>", re.DOTALL)


def without_thinking(reply: str) -> str:
    """The reply after its thoughts; a thought that was cut off leaves nothing.

    Some templates open the thought in the prompt, so a reply may hold its end only.

    Example:
        >>> without_thinking("The user asks for two.</think>\\n\\n1. What is it?").strip()
        '1. What is it?'
    """
    text = _CHANNEL.sub("", reply) if "<|channel|>" in reply else reply
    text = _THOUGHT.sub("", text)
    return _OPEN_BEFORE.sub("", text) if "</" in text else text
