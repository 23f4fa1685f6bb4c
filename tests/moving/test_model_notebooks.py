"""The calls of the old package's notebooks on models of sentence-transformers, import changed."""

import pytest
from llama_index.core import Document, VectorStoreIndex, get_tokenizer
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.selectors import EmbeddingSingleSelector
from llama_index.core.tools import ToolMetadata

from llama_index.tuning import (
    EmbeddingQAFinetuneDataset,
    SentenceTransformersFinetuneEngine,
    generate_qa_embedding_pairs,
)
from llama_index.tuning.cross_encoders import CrossEncoderFinetuneEngine
from llama_index.tuning.cross_encoders.dataset_gen import (
    generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents,
)
from tests.embeddings.full.conftest import build_model
from tests.generate.scripted import ScriptedLLM, WordEmbedding
from tests.rerankers.conftest import TOPICS, shop
from tests.tiny_bert import save_tiny_bert


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data():
    return shop(n=16, per_document=1)


@pytest.fixture(scope="module")
def model_id(tmp_path_factory, data):
    texts = [*data.corpus.values(), *data.queries.values(), "Useful for questions about fees. Who"]
    return build_model(tmp_path_factory.mktemp("model"), texts)


def test_an_embedding_model_is_tuned_and_opened_again(data, model_id):
    def ask(prompt):
        [id_] = [id_ for id_, text in data.corpus.items() if text in prompt]
        return data.queries[id_.replace("d", "q") + "-0"]

    train_dataset = generate_qa_embedding_pairs(
        llm=ScriptedLLM(answer=ask), nodes=data.to_nodes(), verbose=False
    )
    others = {id_: f"{text} Who says so?" for id_, text in list(data.queries.items())[:6]}
    val_dataset = EmbeddingQAFinetuneDataset(
        queries=others, corpus=data.corpus, relevant_docs={q: data.relevant_docs[q] for q in others}
    )
    train_dataset.save_json("train_dataset.json")
    val_dataset.save_json("val_dataset.json")
    train_dataset = EmbeddingQAFinetuneDataset.from_json("train_dataset.json")
    val_dataset = EmbeddingQAFinetuneDataset.from_json("val_dataset.json")
    arguments = {
        "model_id": model_id,
        "model_output_path": "test_model",
        "val_dataset": val_dataset,
        "epochs": 1,
        "device": "cpu",
    }
    finetune_engine = SentenceTransformersFinetuneEngine(
        train_dataset, **arguments, accept="always"
    )
    finetune_engine.finetune()
    embed_model = finetune_engine.get_finetuned_model()
    later = SentenceTransformersFinetuneEngine(train_dataset, **arguments).get_finetuned_model()
    for model in (embed_model, later):
        assert model.get_query_embedding("fee?") == embed_model.get_query_embedding("fee?")
    index = VectorStoreIndex(data.to_nodes(), embed_model=embed_model)
    assert len(index.as_retriever(similarity_top_k=2).retrieve("fee?")) == 2


def test_a_router_is_tuned_through_its_embedding_model(model_id):
    """Queries are what is routed, the corpus holds the descriptions of the choices."""
    choices = {
        id_: f"Useful for questions about the {one} and {two} rules"
        for id_, one, two in zip("abcd", TOPICS[::6], TOPICS[1::6], strict=True)
    }
    queries, relevant_docs = {}, {}
    for id_, one, two in zip(choices, TOPICS[::6], TOPICS[1::6], strict=True):
        for number, topic in enumerate((one, two) * 3):
            queries[f"{id_}{number}"] = f"What do the {topic} rules say, part {number}?"
            relevant_docs[f"{id_}{number}"] = [id_]
    train_dataset = EmbeddingQAFinetuneDataset(
        queries=queries, corpus=choices, relevant_docs=relevant_docs
    )
    finetune_engine = SentenceTransformersFinetuneEngine(
        train_dataset,
        model_id=model_id,
        model_output_path="test_model3",
        epochs=2,
        show_progress_bar=False,
        device="cpu",
        accept="always",
    )
    finetune_engine.finetune()
    ft_embed_model = finetune_engine.get_finetuned_model()
    ft_selector = EmbeddingSingleSelector.from_defaults(embed_model=ft_embed_model)
    tools = [ToolMetadata(name=id_, description=text) for id_, text in choices.items()]
    selected = ft_selector.select(tools, "What do the refund rules say?")
    assert 0 <= selected.selections[0].index < 4


def test_a_cross_encoder_is_tuned_on_generated_questions(data, tmp_path):
    documents = [Document(text=text) for text in data.corpus.values()]
    llm = ScriptedLLM(answer=lambda prompt: "What do the rules say about a fee?; Which rules?")
    questions = generate_synthetic_queries_over_documents(
        documents=documents[:1], num_questions_per_chunk=2, llm=llm
    )
    assert questions == ["What do the rules say about a fee?", "Which rules?"]
    questions = list(data.queries.values())

    def relevant(prompt):
        """Whether the question names the article that the document is."""
        asked, document = prompt.rsplit("Query: ", 1)[1].split("Document: ", 1)
        number = asked.split("article ")[1].split()[0]
        return "Yes" if f"Article {number}." in document else "No"

    finetuning_data = generate_ce_fine_tuning_dataset(
        documents=documents,
        questions_list=questions,
        max_chunk_length=256,
        top_k=4,
        llm=ScriptedLLM(answer=relevant),
        embed_model=WordEmbedding(),
    )
    assert len(get_tokenizer()(documents[0].text)) < 256
    finetuning_engine = CrossEncoderFinetuneEngine(
        dataset=finetuning_data,
        model_id=str(save_tiny_bert(tmp_path / "tiny", [*data.corpus.values(), *questions])),
        epochs=1,
        batch_size=16,
        model_output_path="tuned",
        accept="always",
    )
    finetuning_engine.finetune()
    tuned = finetuning_engine.get_finetuned_model(top_n=3)
    nodes = VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding())
    found = nodes.as_retriever(similarity_top_k=5).retrieve(questions[0])
    assert len(tuned.postprocess_nodes(found, query_str=questions[0])) == 3
    named = finetuning_engine.get_finetuned_model(model_name="tuned", top_n=2)
    stock = SentenceTransformerRerank(model="tuned", top_n=2, device="cpu")
    for reranker in (named, stock):
        assert len(reranker.postprocess_nodes(found, query_str=questions[0])) == 2
