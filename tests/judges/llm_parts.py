"""What the tests of judges that are LLMs share: verdicts by a word, and scripted chat models."""

import numpy as np
from llama_index.core.llms import LLMMetadata, MockLLM
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning import JudgmentDataset
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.judges.llm.model import StandIn
from llama_index.tuning.report import FinetuneReport

ITEM = {
    "query": "Fee?",
    "response": "5 euros.",
    "contexts": ["The fee is 5 euros.", "Plan A."],
    "reference": "It is 5.",
}
PAIR = {**ITEM, "second_response": "6 euros."}
SHORT = PromptTemplate("{query_str}\nContext: {context_str}\nAnswer: ")


def one(**fields):
    return JudgmentDataset.from_records([{**ITEM, **fields}])


def coins(count=60, seed=0):
    """An answer in pounds passes, one in rupees fails: neither length nor overlap tells which."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        right, (fee, said) = bool(rng.integers(2)), rng.integers(10, 99, 2)
        rows.append(
            {
                "query": f"Fee {number} of {seed}?",
                "contexts": [f"The fee is {fee} pounds or rupees."],
                "response": f"It is {said} {'pounds' if right else 'rupees'}.",
                "passing": right,
                "source": "teacher",
            }
        )
    return rows


def chat_llm(reply, **metadata):
    """A chat model that replies by a function of the request's last message."""
    known = {
        "is_chat_model": True,
        "model_name": "scripted",
        "context_window": 8192,
        **metadata,
    }
    return StandIn(lambda messages: reply(messages[-1].content), LLMMetadata(**known))


def by_the_coin(prompt):
    return "YES" if "pounds" in prompt.rsplit("Information:", 1)[-1].split("Context:")[0] else "NO"


def short_form(kind):
    """The evaluator with a prompt short enough for a tiny model."""
    return kind(llm=MockLLM(), eval_template=SHORT)


class ScriptedEngine(BaseLLMFinetuneEngine):
    """Has an untuned and a tuned LLM ready; measures them as the real engines do."""

    def __init__(self, chats, *, evaluate=None, accept="gain", base, tuned, measures=True):
        self.chats, self.evaluate, self.accept = chats, evaluate, accept
        self.base, self.tuned, self.measures, self.asked_for = base, tuned, measures, None

    def finetune(self):
        if self.measures:
            self.evaluate(self.base)
            self.evaluate(self.tuned)
        return FinetuneReport(
            title="scripted", method="", primary="", gains={}, accepted=True, reason="",
            history=[{"loss": 0.5}], notes=["scripted"],
        )  # fmt: skip

    def get_finetuned_model(self, **model_kwargs):
        self.asked_for = model_kwargs
        return self.tuned
