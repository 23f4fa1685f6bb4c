"""Teach an LLM to call your tools

The calls are verified against the tools' own schemas before they are learnt: a wrong type or a
made-up argument is left out, with the reason. The tuned model is scored by whole calls, right
function and right arguments, on requests that it has not seen.
"""

import os
import tempfile

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool

from llama_index.tuning import HuggingFaceFinetuneEngine, call_task
from llama_index.tuning.llms import CallItem, ExpectedCall, call_scores

# The tools, as LlamaIndex knows them.


def pay(name: str, euros: int) -> str:
    """Pay somebody."""
    return f"{name} has {euros} euros more."


tools = [FunctionTool.from_defaults(pay)]

# Requests with the calls that answer them, and some that need none; every fourth request is held
# out. One row gives a number as a word.

NAMES = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn"]
requests = [
    CallItem(f"Give {name} {n} euros", [ExpectedCall("pay", {"name": [name], "euros": [n]})])
    for name in NAMES
    for n in (1, 2, 5, 10, 20, 50, 70)
]
greetings = [CallItem(f"{name} says hello", reply="Hello!") for name in NAMES]
wrong = CallItem("Give Ada five", [ExpectedCall("pay", {"name": ["Ada"], "euros": ["five"]})])
train = [item for number, item in enumerate(requests) if number % 4] + [*greetings, wrong]
task = call_task(train, tools, held_out=requests[::4], max_tokens=60)
print(len(task.dataset), "conversations")
for one in task.dropped:
    print("left out:", one.reason)

# Any LLM of LlamaIndex that calls functions can be scored on the held-out requests. This one
# follows a script and pays everybody one euro: it always picks the right function, and rarely the
# right call.


def one_euro(messages: list[ChatMessage], **kwargs: object) -> ChatMessage:
    name = str(messages[-1].content).split()[1]
    call = ToolCallBlock(tool_call_id="1", tool_name="pay", tool_kwargs={"name": name, "euros": 1})
    return ChatMessage(role="assistant", blocks=[call])


scripted = MockFunctionCallingLLM(response_generator=one_euro, is_chat_model=True)
found = call_scores(scripted, task.held_out, tools)
print(f"right function {found.name.mean():.2f}, right call {found.call.mean():.2f}")

# Tuning takes a chat model whose template knows tools: set `MODEL` to its folder or its name on
# the hub, such as `Qwen/Qwen3-0.6B`. The tuned LLM calls functions as LlamaIndex's own do, so
# agents take it as it is.

if model := os.environ.get("MODEL"):
    engine = HuggingFaceFinetuneEngine(
        task.dataset,
        model,
        model_output_path=f"{tempfile.mkdtemp()}/tuned",
        evaluate=task.evaluate,
    )
    print(engine.finetune())
    print(engine.get_finetuned_model().predict_and_call(tools, "Give Ada 20 euros"))
