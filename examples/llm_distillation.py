"""Distil a teacher into a small model: filter its answers, tune, compare student and teacher.

    python examples/llm_distillation.py [MODEL]

MODEL is a chat model's folder or its name on the hub, such as Qwen/Qwen3-0.6B. Without one, a tiny
Llama with random weights is made. The teacher is a scripted LLM that errs now and then; any LLM of
LlamaIndex takes its place.
"""

import sys
import tempfile
from pathlib import Path

from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llm_local import PAIRS, answer, question, tiny_llama

from llama_index.tuning import HuggingFaceFinetuneEngine, distillation_task
from llama_index.tuning.llms import HuggingFaceOptions

RIGHT = {question(*pair): answer(*pair) for pair in PAIRS}


class Teacher(CustomLLM):
    """Knows every gate, and gives the code of another one for each sixth question."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="teacher")

    def complete(
        self, prompt: str, formatted: bool = False, **kwargs: object
    ) -> CompletionResponse:
        asked = list(RIGHT).index(next(q for q in RIGHT if q in prompt))
        return CompletionResponse(text=list(RIGHT.values())[asked - (asked % 6 == 0)])

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: object
    ) -> CompletionResponseGen:
        raise NotImplementedError


def checks_out(prompt: str, text: str) -> bool:
    """The filter: here the truth, elsewhere SQL that runs, a test that passes, an evaluator."""
    return RIGHT[prompt] == text


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        task = distillation_task(
            RIGHT,
            Teacher(),
            keep=checks_out,
            output_path=Path(name) / "distilled.jsonl",
            max_tokens=16,
        )
        print(len(task.dataset), "answers to learn,", len(task.dropped), "refused")
        if len(sys.argv) > 1:
            model, options = sys.argv[1], HuggingFaceOptions()
        else:
            model = str(tiny_llama(Path(name) / "base"))
            options = HuggingFaceOptions(
                weights="full", device="cpu", learning_rate=5e-3, epochs=30, batch_size=16
            )
        engine = HuggingFaceFinetuneEngine(
            task.dataset,
            model,
            model_output_path=Path(name) / "tuned",
            options=options,
            evaluate=task.evaluate,
            peers=task.peers,
        )
        print(engine.finetune())


if __name__ == "__main__":
    main()
