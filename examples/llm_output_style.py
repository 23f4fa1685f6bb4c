"""Teach an LLM an output style

A support desk wants every answer in one form: two short sentences, the second one with a date, no
"please" and no apology. Prompts that ask for it are long, and are forgotten now and then; a tuned
model keeps to it without being told.
"""

import os
import re
import tempfile

from llama_index.tuning import HuggingFaceFinetuneEngine, style_task
from llama_index.tuning.demo import tiny_llama
from llama_index.tuning.llms import HuggingFaceOptions, StyleItem

# The style as checks. Each looks at an output and says what is wrong with it, or nothing. They
# decide what is learnt, and they score the model afterwards.


def two_sentences(output: str) -> str | None:
    return None if output.count(".") == 2 else f"{output.count('.')} sentences, not 2"


def says_when(output: str) -> str | None:
    return None if re.search(r"\bday \d+\.$", output) else "it does not end in a day"


def is_plain(output: str) -> str | None:
    return "it begs or apologises" if {"please", "sorry"} & set(output.lower().split()) else None


# Requests with their answers, as they were written by people who know the style. One of them is a
# slip: it begs, so it is left out, with the reason.

THINGS = ["parcel", "refund", "invoice", "card", "contract", "repair", "visa", "meter"]
ASKED = ["Where is my {}?", "What about the {}?", "I wait for a {}.", "Is the {} on its way?"]
items = [
    StyleItem(text.format(thing), f"Your {thing} is on its way. It is there on day {day}.")
    for day, thing in enumerate(THINGS, start=10)
    for text in ASKED
]
items.append(StyleItem("My parcel is lost.", "I am sorry. Please wait until day 30."))

task = style_task(items, [two_sentences, says_when, is_plain], held_out=0.35, max_tokens=40)
print(len(task.dataset), "answers to learn,", len(task.held_out), "requests to measure on")
for one in task.dropped:
    print("left out:", one.reason)

# The model. Set `MODEL` to the folder or the hub's name of a chat model, such as
# `Qwen/Qwen3-0.6B`. Without it a tiny Llama with random weights is made, so that this runs
# anywhere in seconds: it can say nothing at all before it is tuned, and nothing but this
# afterwards.

folder = tempfile.mkdtemp()
texts = [message["content"] for e in task.dataset.examples for message in e.messages]
model, options = os.environ.get("MODEL"), HuggingFaceOptions()
if model is None:
    model = tiny_llama(f"{folder}/base", texts)
    options = HuggingFaceOptions(
        weights="full", device="cpu", learning_rate=5e-3, max_steps=120, batch_size=12
    )

# Tuning. The report has the share of held-out requests that are answered in the style, base
# against tuned, with an interval. If the gain is not shown, the base is kept.

engine = HuggingFaceFinetuneEngine(
    task.dataset,
    model,
    model_output_path=f"{folder}/tuned",
    options=options,
    evaluate=task.evaluate,
)
print(engine.finetune())

# What it says now, without any instruction:

llm = engine.get_finetuned_model(max_new_tokens=40)
print(llm.complete("Is the visa on its way?"))
