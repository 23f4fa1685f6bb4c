"""What an app recorded is learnt from with the very tokens that were served."""

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage

from llama_index.tuning import FinetuningRecorder, TunedHuggingFaceLLM
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.local.data import IGNORED, tokenize_chats
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.serving.template import ChatTemplate
from tests.llms.conftest import fee_tool, question


def rows(dataset, tokenizer):
    template = ChatTemplate(tokenizer, "tiny")
    ends = [tokenizer.eos_token_id]
    return tokenize_chats(dataset, template, ends, HuggingFaceOptions(), 500).rows


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agents_run_is_learnt_token_for_token(tuned, tmp_path, monkeypatch, streaming):
    served = []  # (prompt, reply) of each call, as ids
    generate = TunedHuggingFaceLLM._generate

    def noted(self, texts, call, **more):
        replies = generate(self, texts, call, **more)
        served.append((self._encode(texts[0]), replies[0].ids))
        return replies

    monkeypatch.setattr(TunedHuggingFaceLLM, "_generate", noted)
    with FinetuningRecorder(tmp_path / "traffic.jsonl") as recorder:
        agent = FunctionAgent(tools=[fee_tool()], llm=tuned, streaming=streaming)
        await agent.run(question("Oslo"))
    dataset = recorder.chat_dataset()
    assert len(dataset) == 1  # two calls, one conversation
    assert dataset.examples[0].tools
    (row,) = rows(dataset, tuned.tokenizer)
    end = tuned.tokenizer.eos_token_id
    learnt = [place for place, label in enumerate(row.labels) if label != IGNORED]
    expected = []
    for prompt, reply in served:
        whole = [*prompt, *reply, end]
        assert row.input_ids[: len(whole)] == whole
        expected += range(len(prompt), len(whole))
    assert learnt == expected
    assert len(served) == 2


def test_thoughts_images_and_results_are_kept_or_refused(tuned):
    thought = ChatMessage(
        role="assistant", blocks=[ThinkingBlock(content="hm"), TextBlock(text="Five.")]
    )
    seen = ChatMessage(
        role="user", blocks=[ImageBlock(url="https://example.com/a.png"), TextBlock(text="What?")]
    )
    asked = {"role": "user", "content": "Fee?"}
    said = message_record(thought)
    assert said["thinking"] == "hm"
    template = ChatTemplate(tuned.tokenizer, "tiny")
    ends = [tuned.tokenizer.eos_token_id]
    kept = tokenize_chats(
        ChatDataset([ChatExample([asked, said])]), template, ends, HuggingFaceOptions(), 500
    )
    assert kept.unwritten_thoughts == 1  # said in the preflight, as a warning
    with pytest.raises(DatasetError, match=r"messages\[0\].content holds image_url"):
        rows(ChatDataset([ChatExample([message_record(seen), said])]), tuned.tokenizer)
