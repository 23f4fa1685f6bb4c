"""One rule for thoughts, whoever wrote them."""

import time

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.thoughts import split_thoughts, without_thoughts


@pytest.mark.parametrize(
    ("reply", "thoughts", "answer"),
    [
        ("<think>The capital.</think>\n\nParis", "The capital.", "Paris"),
        ("<think>\n\n</think>\n\nSELECT 1", "", "SELECT 1"),
        ("<Thinking>a\nb</Thinking> 5", "a\nb", "5"),
        ("[THINK]hm[/THINK]5", "hm", "5"),
        ("◁think▷hm◁/think▷5", "hm", "5"),
        ("<|START_THINKING|>hm<|END_THINKING|>5", "hm", "5"),
        ("<|channel>thought\nhm<channel|>5", "hm", "5"),
        ("They ask.\n</think>\n\nParis", "They ask.", "Paris"),
        ("</think>\n\nParis", "", "Paris"),
        ("They ask for the capital.</think>\n\nParis", "They ask for the capital.", "Paris"),
        ("<scratchpad>hm</scratchpad>\n5", "hm", "5"),
        ("<antThinking>hm</antThinking>5", "hm", "5"),
        ("<unused94>thought\nhm<unused95>5", "hm", "5"),
        (
            "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>5<|END_RESPONSE|>",
            "hm",
            "5",
        ),
        (
            "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>5<|end_of_solution|>",
            "hm",
            "5",
        ),
        ("First <think>hm</think>then", "hm", "First then"),
        ("<think>one</think><think>two</think>\nx", "one\ntwo", "x"),
        ("<think>cut off by the limit", "cut off by the limit", ""),
        ("<think>```sql\nSELECT 1\n```</think>SELECT 2", "```sql\nSELECT 1\n```", "SELECT 2"),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>"
            "SELECT 1<|return|>",
            "hm",
            "SELECT 1",
        ),
        ("<|channel|>final<|message|>SELECT 1", "", "SELECT 1"),
        ("analysisThe user asks.assistantfinalParis", "The user asks.", "Paris"),
        (" to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>5<|eot|>", "hm", "5"),
    ],
)
def test_thoughts_are_told_from_the_answer(reply, thoughts, answer):
    assert split_thoughts(reply) == (thoughts, answer)


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "  indented\n",
        "",
        "Write `<think>` and `</think>` around a thought.",
        "```xml\n<think>a</think>\n```",
        "I <think> so",
        "analysis of the final",
        "finally, SELECT",
        "finalScore = 3",
        "a </think> within a line",
    ],
)
def test_an_answer_stays_as_it_is(text):
    assert split_thoughts(text) == ("", text)


@pytest.mark.parametrize("piece", ["<think>", "```", "`", "</think>", "x <think>", "\n", "[think]"])
def test_the_time_is_linear_in_the_length(piece):
    started = time.process_time()
    split_thoughts("x " + piece * 100_000)
    split_thoughts(piece * 100_000)
    assert time.process_time() - started < 3


def test_without_thinking_takes_out_inline_thoughts_too():
    asked = {"role": "user", "content": "What does <think>x</think> mean?"}
    parts = [{"type": "text", "text": "<think>hm</think>"}, {"type": "text", "text": "5"}]
    dataset = ChatDataset.from_messages(
        [
            [asked, {"role": "assistant", "content": "<think>hm</think>\n\n5", "thinking": "so"}],
            [asked, {"role": "assistant", "content": parts}],
        ]
    ).without_thinking()
    first, second = dataset.examples
    assert first.messages == [asked, {"role": "assistant", "content": "5"}]
    assert second.messages[1]["content"] == [{"type": "text", "text": "5"}]
    assert without_thoughts("5") == "5"
