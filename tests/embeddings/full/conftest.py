"""A sentence-transformers model of two tiny layers over the corpus' words, and shop questions."""

import re

import pytest

from llama_index.tuning import SentenceTransformersFinetuneEngine
from llama_index.tuning.embeddings import SentenceTransformersOptions
from tests.rerankers.conftest import shop

ON_CPU = {
    "precision": "fp32",
    "learning_rate": 2e-3,
    "held_out": 0.2,
    "max_steps": 4,
    "refit": False,
}


def build_model(folder, texts, prompts=None, **config):
    """Save a random model whose vocabulary is the words of `texts`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = sorted({w for text in texts for w in re.findall(r"\w+|[^\w\s]", text.lower())})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    raw = folder / "transformer"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **names
    ).save_pretrained(raw)
    shape = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    BertModel(BertConfig(**{**shape, **config})).save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=64)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu", prompts=prompts)
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return str(folder / "model")


@pytest.fixture(scope="session")
def data():
    return shop(n=30)


def texts_of(data):
    return [*data.corpus.values(), *data.queries.values(), "query: passage:"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, data):
    return build_model(tmp_path_factory.mktemp("tiny"), texts_of(data))


@pytest.fixture(scope="session")
def prompted(tmp_path_factory, data):
    prompts = {"query": "query: ", "passage": "passage: "}
    return build_model(tmp_path_factory.mktemp("prompted"), texts_of(data), prompts)


@pytest.fixture
def engine(data, tiny, tmp_path):
    """Make an engine: options by name, its other arguments as they are."""

    def make(options=None, **arguments):
        settings = SentenceTransformersOptions(**{**ON_CPU, **(options or {})})
        defaults = {
            "dataset": data,
            "model_id": tiny,
            "model_output_path": tmp_path / "out",
            "batch_size": 4,
            "evaluation_steps": 2,
            "device": "cpu",
            "options": settings,
        }
        return SentenceTransformersFinetuneEngine(**{**defaults, **arguments})

    return make
