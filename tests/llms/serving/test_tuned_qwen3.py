"""A thinking model's template: what is learnt by heart is what is served, scored and loaded."""

from pathlib import Path

import pytest
from llama_index.core.llms import ChatMessage

from llama_index.tuning import HuggingFaceFinetuneEngine, TunedHuggingFaceLLM
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.llms import HuggingFaceOptions
from llama_index.tuning.llms.tasks.knowledge import texts_of
from tests.llms.tiny import save_tiny

trl = pytest.importorskip("trl")
SOURCE = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
ANSWERS = {"Oslo Oslo?": "SELECT oslo", "Lima Lima?": "SELECT lima"}


def right(llm):
    replies = texts_of(llm, list(ANSWERS), max_tokens=20)
    said = [float(a == b) for a, b in zip(replies, ANSWERS.values(), strict=True)]
    return said * 6


@pytest.mark.parametrize("arguments", [None, {}])
def test_the_answer_comes_without_a_thought(tmp_path, arguments):
    chats = ChatDataset.from_messages(
        [
            [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
            for q, a in ANSWERS.items()
        ]
    )
    save_tiny(tmp_path / "base", [*ANSWERS, *ANSWERS.values(), "<think>"] * 3, template=SOURCE)
    engine = HuggingFaceFinetuneEngine(
        chats,
        tmp_path / "base",
        model_output_path=tmp_path / "tuned",
        evaluate=right,
        accept="always",
        options=HuggingFaceOptions(
            weights="full",
            device="cpu",
            learning_rate=4e-3,
            max_steps=40,
            batch_size=2,
            template_arguments=arguments,
        ),
    )
    known = {"enable_thinking": False} if arguments is None else {}
    assert engine.preflight().template_arguments == known
    assert engine.preflight().round_trip == 1
    report = engine.finetune()
    assert report.gains[report.primary].tuned == 1
    llm = TunedHuggingFaceLLM.load(tmp_path / "tuned", device="cpu", max_new_tokens=20)
    for question, answer in ANSWERS.items():
        assert str(llm.complete(question)) == answer
        asked = [ChatMessage(role="user", content=question)]
        assert "".join(piece.delta or "" for piece in llm.stream_chat(asked)) == answer
