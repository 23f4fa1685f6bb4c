"""Teach a model to call your tools: verify the data, score an LLM on them, tune it.

    python examples/llm_function_calling.py [MODEL]

MODEL is a chat model whose template knows tools, such as Qwen/Qwen3-0.6B. Without one only the
data are made and verified, and a scripted LLM that always pays one euro is scored on them.
"""

import sys
import tempfile
from pathlib import Path

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool

from llama_index.tuning import HuggingFaceFinetuneEngine, call_task
from llama_index.tuning.llms import CallItem, ExpectedCall, call_scores


def pay(name: str, euros: int) -> str:
    """Pay somebody."""
    return f"{name} has {euros} euros more."


TOOLS = [FunctionTool.from_defaults(pay)]
NAMES = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn"]


def items(names: list[str]) -> list[CallItem]:
    """Requests with the calls that answer them, and some that need none."""
    paid = [
        CallItem(f"Give {name} {n} euros", [ExpectedCall("pay", {"name": [name], "euros": [n]})])
        for name in names
        for n in (1, 5, 20)
    ]
    return paid + [CallItem(f"{name} says hello", reply="Hello!") for name in names]


def one_euro(messages: list[ChatMessage], **kwargs: object) -> ChatMessage:
    """Pays the second word of the request one euro."""
    name = str(messages[-1].content).split()[1]
    call = ToolCallBlock(tool_call_id="1", tool_name="pay", tool_kwargs={"name": name, "euros": 1})
    return ChatMessage(role="assistant", blocks=[call])


def main() -> None:
    wrong = CallItem("Give Ada five", [ExpectedCall("pay", {"name": ["Ada"], "euros": ["five"]})])
    task = call_task([*items(NAMES[:4]), wrong], TOOLS, held_out=items(NAMES[4:]), max_tokens=80)
    print(len(task.dataset), "conversations; dropped:", *task.dropped)
    scripted = MockFunctionCallingLLM(response_generator=one_euro, is_chat_model=True)
    found = call_scores(scripted, task.held_out, TOOLS)
    print(
        f"scripted LLM: right function {found.name.mean():.2f}, right call {found.call.mean():.2f}"
    )
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            engine = HuggingFaceFinetuneEngine(
                task.dataset,
                sys.argv[1],
                model_output_path=Path(folder) / "tuned",
                evaluate=task.evaluate,
            )
            print(engine.finetune())


if __name__ == "__main__":
    main()
