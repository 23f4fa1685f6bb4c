"""Function calling with a tiny Llama trained from scratch: the whole flow on Snips' requests.

    python benchmarks/llm_function_calling.py [--epochs 5] [--test-every 1] [--seed 0]

All rows are verified against the tools' schemas; a Llama of about 1.2 million random weights is
tuned on the training rows and scored on test requests that it never saw: right function, and right
call, every argument among the accepted values. A `FunctionAgent` then runs on the tuned model, and
structured output goes through a pydantic class. So small a model learns which function to call
and how a call is written, but not to copy words that it never saw: see the whole-call accuracy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult  # noqa: E402
from llama_index.core.program import FunctionCallingProgram  # noqa: E402
from llama_index.core.prompts import PromptTemplate  # noqa: E402
from llama_index.core.tools import FunctionTool  # noqa: E402
from pydantic import Field, create_model  # noqa: E402

from llama_index.tuning import HuggingFaceFinetuneEngine  # noqa: E402
from llama_index.tuning.evaluate import paired_gain  # noqa: E402
from llama_index.tuning.llms import HuggingFaceOptions  # noqa: E402
from llama_index.tuning.llms.tasks.calls import (  # noqa: E402
    CallItem,
    CallScores,
    ExpectedCall,
    call_dataset,
    call_scores,
)
from llama_index.tuning.llms.tasks.tools import offered_tools  # noqa: E402
from tests.llms.tiny import TEMPLATE, save_tiny  # noqa: E402

# The tools' names only: the schemas of seven tools are longer than all the rest.
NAMES_ONLY = (
    TEMPLATE.replace("{{ tool | tojson }}{{ '\n' }}", "{{ ' ' + tool.function.name }}")
    .replace("{{ '<tools>\n' }}", "")
    .replace("</tools>", "")
)
DONE = "It is done."


def items(folder: Path, split: str) -> list[CallItem]:
    """The requests of a split with their calls and accepted values."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    return [
        CallItem(
            row["query"],
            [ExpectedCall(call["name"], call["arguments"]) for call in row["answer"]],
            tools=row["tools"],
        )
        for row in rows
    ]


def finished(item: CallItem) -> CallItem:
    """The same request once its tool has answered: what an agent asks for last."""
    [call] = item.calls
    arguments = json.dumps({key: values[0] for key, values in call.arguments.items()})
    made = {
        "id": "call_0",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    history = [
        {"role": "user", "content": item.messages},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_0", "content": "ok"},
    ]
    return CallItem(history, reply=DONE, tools=item.tools)


def agent_tools(schemas: list[Any], seen: list[str]) -> list[FunctionTool]:
    """Tools that do nothing but say that they ran."""

    def of(name: str, metadata: Any) -> FunctionTool:
        def run(**arguments: Any) -> str:
            seen.append(name)
            return "ok"

        return FunctionTool(fn=run, metadata=metadata)

    return [of(name, made.tool.metadata) for name, made in offered_tools(schemas).items()]


async def run_agent(llm: Any, schemas: list[Any], asked: list[CallItem]) -> dict[str, Any]:
    """Share of requests where the agent ran the right tool once and finished, both ways."""
    shares: dict[str, Any] = {"requests": len(asked)}
    for streaming in (False, True):
        right = pieces = 0
        for item in asked:
            seen: list[str] = []
            agent = FunctionAgent(tools=agent_tools(schemas, seen), llm=llm, streaming=streaming)
            handler = agent.run(str(item.messages), max_iterations=4)
            answered = 0
            try:
                async for event in handler.stream_events():
                    answered += isinstance(event, ToolCallResult)
                    pieces += isinstance(event, AgentStream) and bool(event.delta)
                reply = str(await handler)
            except Exception as exc:  # counted as wrong, and shown
                print(f"agent: {item.messages!r}: {exc}", file=sys.stderr)
                continue
            right += seen == [item.calls[0].name] and answered == 1 and reply == DONE
        shares["streaming" if streaming else "not streaming"] = right / len(asked)
        if streaming:
            shares["pieces streamed"] = pieces
    return shares


def structured(llm: Any, schemas: list[Any], asked: list[CallItem]) -> dict[str, Any]:
    """Requests for the weather as objects of a pydantic class."""
    [schema] = [s["function"] for s in schemas if s["function"]["name"] == "GetWeather"]
    fields: dict[str, Any] = {
        name: (str | None, Field(default=None, description=about["description"]))
        for name, about in schema["parameters"]["properties"].items()
    }
    weather = create_model("GetWeather", __doc__=schema["description"], **fields)
    program = FunctionCallingProgram.from_defaults(
        weather, prompt=PromptTemplate("{request}"), llm=llm
    )
    made, example = 0, None
    for item in asked:
        try:
            found = program(request=item.messages)
        except ValueError as exc:  # no sound call: counted, and shown
            print(f"structured: {item.messages!r}: {exc}", file=sys.stderr)
            continue
        made += isinstance(found, weather)
        example = example or {
            "request": item.messages,
            "object": found.model_dump(exclude_none=True),
        }
    return {"requests": len(asked), "objects": made / len(asked), "example": example}


def main() -> None:
    """Verify, tune, score, run the agent and the program; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--test-every", type=int, default=1, help="score every n-th test request")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.data / "snips_function_calling"
    schemas = json.loads((folder / "tools.json").read_text())
    splits = {name: items(folder, name) for name in ("train", "val", "test")}
    verified = {}
    for name, rows in splits.items():
        dataset, dropped = call_dataset(rows, schemas)
        verified[name] = {"rows": len(rows), "sound": len(dataset), "dropped": len(dropped)}
    train = [finished(i) if n % 10 == 0 else i for n, i in enumerate(splits["train"])]
    dataset, _ = call_dataset(train, schemas)
    test = splits["test"][:: given.test_every]
    seen: list[CallScores] = []

    def names_right(llm: Any) -> Any:
        seen.append(call_scores(llm, test, schemas, max_tokens=80))
        return seen[-1].name

    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        texts = [json.dumps(e.messages, ensure_ascii=False) for e in dataset.examples]
        texts += [str(i.messages) for i in splits["train"]]
        texts += [" " + " ".join(i.tools or ()) for i in splits["train"]]
        model = save_tiny(
            here / "random", texts, vocabulary=1500, template=NAMES_ONLY, hidden=160, layers=3,
            seed=given.seed,
        )  # fmt: skip
        options = HuggingFaceOptions(
            weights="full", device="cpu", learning_rate=2e-3, batch_size=32, epochs=given.epochs,
            warmup=0.05, save_steps=1000, seed=given.seed,
        )  # fmt: skip
        started = time.process_time()
        engine = HuggingFaceFinetuneEngine(
            dataset, model, model_output_path=here / "tuned", options=options, evaluate=names_right
        )
        report = engine.finetune()
        seconds = time.process_time() - started
        print(report, file=sys.stderr)
        llm = engine.get_finetuned_model(max_new_tokens=80)
        before, after = seen[0], seen[-1]
        result = {
            "verified": verified,
            "test": len(test),
            "cpu_seconds": round(seconds),
            "accepted": report.accepted,
            "function name": vars(paired_gain(before.name, after.name)),
            "whole call": vars(paired_gain(before.call, after.call)),
            "valid by schema, tuned": float(after.valid.mean()),
        }
        print(json.dumps(result, indent=2), flush=True)
        agent = asyncio.run(run_agent(llm, schemas, splits["test"][::35]))
        weather = [i for i in splits["test"] if i.calls[0].name == "GetWeather"][:20]
        print(
            json.dumps({"agent": agent, "structured": structured(llm, schemas, weather)}, indent=2)
        )


if __name__ == "__main__":
    main()
