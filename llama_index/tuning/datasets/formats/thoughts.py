"""What a model thought aloud, and its answer: one rule for whatever reads a model's replies."""

from __future__ import annotations

import re

_TAGS = (
    *("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "seed:think"),
    *("antthinking", "inner_monologue", "longcat_think"),
)
_CLOSINGS = {
    **{f"<{tag}>": f"</{tag}>" for tag in _TAGS},
    "[think]": "[/think]",  # Mistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|start_thinking|>": "<|end_thinking|>",  # Cohere
    "<|channel>thought": "<channel|>",  # Gemma
    "<unused94>thought": "<unused95>",  # MedGemma
    "<|channel|>analysis<|message|>": "<|end|>",  # gpt-oss
    "to=self<|message|>": "<|eom|>",  # Muse
}


def _any_of(texts: tuple[str, ...]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


_OPENING = _any_of(tuple(_CLOSINGS))
_CODE_OR_OPENING = re.compile(rf"```.*?```|`[^`\n]+`|({_OPENING})", re.DOTALL | re.IGNORECASE)
_FIRST_OPENING = re.compile(_OPENING, re.IGNORECASE)
_CLOSED = {start: re.compile(re.escape(end), re.IGNORECASE) for start, end in _CLOSINGS.items()}
# A closing mark of a thought that the prompt began; within a line it may be spoken of.
_MARKS = _any_of((*(f"</{tag}>" for tag in _TAGS), "[/think]", "◁/think▷"))
_ONLY_CLOSED = re.compile(
    rf"^(?:{_MARKS})|(?<=[^\s`\"'])(?:{_MARKS})(?=\s*\n)", re.MULTILINE | re.IGNORECASE
)
_HEADER = re.compile(
    r"(?:<\|start\|>assistant\s*)?"
    r"(?:<\|channel\|>final(?:\s*<\|constrain\|>\w+)?<\|message\|>|to=user<\|message\|>"
    r"|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)"
)
_TRAILERS = ("<|return|>", "<|end|>", "<|eot|>", "<|end_of_solution|>", "<|END_RESPONSE|>")
_BARE_CHANNELS = re.compile(r"\Aanalysis(.*?)assistantfinal(.*)\Z", re.DOTALL)


def without_thoughts(reply: str) -> str:
    """The answer in a model's reply; empty where the reply ends within a thought.

    Example:
        >>> without_thoughts("<think>They want the capital.</think>\\n\\nParis")
        'Paris'
        >>> without_thoughts("Write `<think>` before a thought.")
        'Write `<think>` before a thought.'
    """
    return split_thoughts(reply)[1]


def split_thoughts(reply: str) -> tuple[str, str]:
    """(thoughts, answer) of a model's reply.

    Thoughts are what stands between the marks of Qwen, DeepSeek, Mistral, Kimi, Cohere, Gemma and
    gpt-oss, and what comes before a closing mark whose opening the prompt held. A thought that
    begins the reply and never ends leaves no answer. Marks in code are no thoughts.

    Example:
        >>> split_thoughts("They want the capital.\\n</think>\\n\\nParis")
        ('They want the capital.', 'Paris')
    """
    bare = _BARE_CHANNELS.match(reply)  # gpt-oss, its special tokens left out
    if bare:
        return bare.group(1).strip(), bare.group(2)
    thoughts, answer = _taken_apart(reply)
    header = _HEADER.match(answer.lstrip())
    if header:
        answer = answer.lstrip()[header.end() :]
        for mark in _TRAILERS:
            answer = answer.removesuffix(mark)
    return "\n".join(thought for thought in map(str.strip, thoughts) if thought), answer


def may_open_thought(text: str) -> bool:
    """Whether more text may turn this, the beginning of a reply, into a thought's opening mark."""
    begun = text.lstrip().casefold()
    marks = (*_CLOSINGS, "<|start|>assistant", "<|channel|>final<|message|>", "to=user<|message|>")
    return any(mark.startswith(begun) for mark in marks)


def _taken_apart(reply: str) -> tuple[list[str], str]:
    thoughts: list[str] = []
    kept: list[str] = []
    unclosed: set[str] = set()
    place = _end_of_opened(reply, thoughts)
    while (mark := _CODE_OR_OPENING.search(reply, place)) is not None:
        opening = (mark.group(1) or "").lower()
        if not opening or opening in unclosed:
            kept.append(reply[place : mark.end()])
            place = mark.end()
            continue
        kept.append(reply[place : mark.start()])
        end = _CLOSED[opening].search(reply, mark.end())
        if end is not None:
            thoughts.append(reply[mark.end() : end.start()])
            place = end.end()
        elif "".join(kept).strip():  # no thought: the text speaks of the mark
            unclosed.add(opening)
            kept.append(mark.group())
            place = mark.end()
        else:
            return [*thoughts, reply[mark.end() :]], ""
    answer = "".join([*kept, reply[place:]])
    return thoughts, answer.lstrip() if place and thoughts else answer


def _end_of_opened(reply: str, thoughts: list[str]) -> int:
    """Where a thought ends that the prompt began; 0 where there is none."""
    end = _ONLY_CLOSED.search(reply)
    if end is None:
        return 0
    opening = _FIRST_OPENING.search(reply)
    if opening is not None and opening.start() < end.start():
        return 0
    thoughts.append(reply[: end.start()])
    return end.end()
