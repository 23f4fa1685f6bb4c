"""One engine of each kind that trains in several processes, on tiny data; `torchrun` starts this.

    torchrun … -m tests.torchrun_engines KIND MODEL OUTPUT [STEP]

With STEP, the second process kills itself at the start of that step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from transformers.trainer_callback import DefaultFlowCallback


def embedding_model(model, out, resume):
    from llama_index.tuning import SentenceTransformersFinetuneEngine
    from llama_index.tuning.embeddings import SentenceTransformersOptions
    from tests.embeddings.full.conftest import ON_CPU
    from tests.rerankers.conftest import shop

    return SentenceTransformersFinetuneEngine(
        shop(n=30),
        model,
        out,
        batch_size=4,
        evaluation_steps=2,
        device="cpu",
        accept="always",
        save_checkpoints=True,
        resume_from_checkpoint=resume,
        options=SentenceTransformersOptions(**{**ON_CPU, "max_steps": 6}),
    )


def cross_encoder(model, out, resume):
    from llama_index.tuning import CrossEncoderFinetuneEngine, RelevanceDataset
    from llama_index.tuning.rerankers import CrossEncoderOptions
    from tests.rerankers.conftest import NoisyRetriever, shop

    data = shop(n=30)
    return CrossEncoderFinetuneEngine(
        RelevanceDataset.from_retriever(data, NoisyRetriever(data, k=8)),
        model,
        out,
        evaluation_steps=2,
        accept="always",
        options=CrossEncoderOptions(device="cpu", learning_rate=1e-3, max_steps=6, resume=resume),
    )


def llm(model, out, resume):
    from llama_index.tuning import HuggingFaceFinetuneEngine
    from llama_index.tuning.llms import HuggingFaceOptions
    from tests.llms.conftest import fees

    settings = {"weights": "full", "device": "cpu", "learning_rate": 5e-3, "max_steps": 6}
    return HuggingFaceFinetuneEngine(
        fees(40),
        model,
        model_output_path=out,
        accept="always",
        options=HuggingFaceOptions(**settings, save_steps=2, held_out=0.3),
    )


ENGINES = {"embedding model": embedding_model, "cross-encoder": cross_encoder, "LLM": llm}


def main() -> None:
    kind, model, out, *step = sys.argv[1:]
    begun: list[bool] = []

    def begin(self, args, state, control, **_):
        if not begun:
            sys.stdout.write(f"the first step is {state.global_step}\n")
            begun.append(True)
        if step and state.global_step == int(step[0]) and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    DefaultFlowCallback.on_step_begin = begin
    resume = Path(f"{out}.checkpoints").exists()
    ENGINES[kind](model, Path(out), resume).finetune()


if __name__ == "__main__":
    main()
