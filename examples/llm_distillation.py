"""Distil a large LLM into a small one

The large model answers prompts of your app, a filter keeps the answers that are right, and a small
model learns them. The report has student against base, and against the teacher.
"""

import os
import tempfile

from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata

from llama_index.tuning import HuggingFaceFinetuneEngine, distillation_task
from llama_index.tuning.demo import tiny_llama
from llama_index.tuning.llms import HuggingFaceOptions

# What the app is asked: the codes of a building's gates.

WORDS = ["north", "south", "east", "west", "red", "blue", "green", "old", "new", "small", "great"]
RIGHT = {
    f"Which code has the {a} {b} gate?": f"{a[0].upper()}{b[0].upper()}-{a}"
    for a in WORDS
    for b in WORDS
    if a != b
}

# The teacher. Any LLM of LlamaIndex takes its place; this one follows a script and gets every
# sixth answer wrong, as large models do now and then.


class Teacher(CustomLLM):
    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="teacher")

    def complete(
        self, prompt: str, formatted: bool = False, **kwargs: object
    ) -> CompletionResponse:
        asked = list(RIGHT).index(next(question for question in RIGHT if question in prompt))
        return CompletionResponse(text=list(RIGHT.values())[asked - (asked % 6 == 0)])

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: object
    ) -> CompletionResponseGen:
        raise NotImplementedError


# The filter: here the truth is known. Elsewhere it is a test that passes, SQL that runs, or an
# evaluator of LlamaIndex. What it refuses is kept beside the rest, and is not learnt.


def checks_out(prompt: str, text: str) -> bool:
    return RIGHT[prompt] == text


folder = tempfile.mkdtemp()
task = distillation_task(
    list(RIGHT), Teacher(), keep=checks_out, output_path=f"{folder}/distilled.jsonl", max_tokens=16
)
print(len(task.dataset), "answers to learn,", len(task.dropped), "refused")

# The student. Set `MODEL` to the folder or the hub's name of a chat model, such as
# `Qwen/Qwen3-0.6B`. Without it a tiny Llama with random weights is made, so that this runs
# anywhere in seconds.

model, options = os.environ.get("MODEL"), HuggingFaceOptions()
if model is None:
    model = tiny_llama(f"{folder}/base", [f"{asked} {said}" for asked, said in RIGHT.items()])
    options = HuggingFaceOptions(
        weights="full", device="cpu", learning_rate=5e-3, epochs=30, batch_size=16
    )

# Tuning and measuring, on prompts whose answers were not learnt. `peers` are the teacher's own
# scores there.

engine = HuggingFaceFinetuneEngine(
    task.dataset,
    model,
    model_output_path=f"{folder}/student",
    options=options,
    evaluate=task.evaluate,
    peers=task.peers,
)
print(engine.finetune())

# The student, ready for the app:

llm = engine.get_finetuned_model(max_new_tokens=16)
print(llm.complete("Which code has the south green gate?"))
