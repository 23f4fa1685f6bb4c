import asyncio
import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from safetensors.numpy import load_file, save

from llama_index.tuning import LightReranker
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.light.features import LinearRanker, retriever_order
from llama_index.tuning.text.words import Analyzer

TEXTS = ("Fees are due in May.", "A refund is paid within ten days.", "Cats sleep.")


def nodes(texts=TEXTS, scores=(0.5, 0.5, 0.5)):
    return [
        NodeWithScore(node=TextNode(id_=str(i), text=text), score=score)
        for i, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]


def order(found):
    return [item.node.node_id for item in found]


def test_the_default_puts_the_node_that_answers_first():
    found = LightReranker().postprocess_nodes(nodes(), query_str="When are refunds paid?")
    assert order(found)[0] == "1"
    assert all(0 <= item.score <= 1 for item in found)
    assert [item.score for item in found] == sorted((i.score for i in found), reverse=True)


def test_async_gives_the_same_without_blocking_the_loop():
    async def both():
        reranker = LightReranker(top_n=2)
        tick = asyncio.create_task(asyncio.sleep(0))
        found = await reranker.apostprocess_nodes(nodes(), query_str="refund")
        await tick
        return found, reranker.postprocess_nodes(nodes(), query_str="refund")

    one, other = asyncio.run(both())
    assert [(i.node.node_id, i.score) for i in one] == [(i.node.node_id, i.score) for i in other]
    assert len(one) == 2


def test_the_retrieval_score_is_kept_out_of_what_models_read():
    given = nodes(scores=(0.9, 0.8, 0.7))
    found = LightReranker(top_n=1).postprocess_nodes(given, query_str="refund paid")[0]
    assert found.metadata["retrieval_score"] == 0.8
    assert "0.8" not in found.node.get_content(MetadataMode.LLM)
    assert "0.8" not in found.node.get_content(MetadataMode.EMBED)
    assert given[1].metadata == {}
    plain = LightReranker(keep_retrieval_score=False)
    assert plain.postprocess_nodes(given, query_str="refund")[0].metadata == {}


def test_a_second_reranker_leaves_the_retrieval_score_alone():
    once = LightReranker().postprocess_nodes(nodes(scores=(0.9, 0.8, 0.7)), query_str="refund")
    twice = LightReranker().postprocess_nodes(once, query_str="refund")
    assert {i.node_id: i.metadata["retrieval_score"] for i in twice} == {
        "0": 0.9,
        "1": 0.8,
        "2": 0.7,
    }


def test_min_score_leaves_out_improbable_nodes():
    everything = LightReranker().postprocess_nodes(nodes(), query_str="When are refunds paid?")
    limit = (everything[0].score + everything[1].score) / 2
    found = LightReranker(min_score=limit).postprocess_nodes(
        nodes(), query_str="When are refunds paid?"
    )
    assert order(found) == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_n": 0}, "top_n must be a whole number >= 1, got 0"),
        ({"top_n": 2.5}, "top_n must be a whole number"),
        ({"top_n": True}, "top_n must be a whole number"),
        ({"min_score": 1.5}, "min_score is a probability from 0 to 1, got 1.5"),
        ({"min_score": "0.5"}, "min_score is a probability from 0 to 1, got '0.5'"),
        ({"min_score": True}, "min_score is a probability from 0 to 1, got True"),
        ({"ranker": retriever_order(), "min_score": 0.5}, "min_score needs a calibrated re-ranker"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LightReranker(**arguments)


def test_numbers_may_be_of_numpy():
    reranker = LightReranker(top_n=np.int64(2), min_score=np.float32(0.001))
    assert len(reranker.postprocess_nodes(nodes(), query_str="refund")) == 2
    assert json.loads(reranker.to_json())["top_n"] == 2


def test_a_missing_query_is_named():
    with pytest.raises(ValueError, match="a re-ranker needs the query"):
        LightReranker().postprocess_nodes(nodes())


def test_odd_nodes_are_ranked_too():
    odd = [
        NodeWithScore(node=ImageNode(id_="image", image="x"), score=0.4),
        NodeWithScore(node=TextNode(id_="none", text="A refund."), score=None),
        NodeWithScore(node=TextNode(id_="nan", text="Fees."), score=float("nan")),
        NodeWithScore(node=TextNode(id_="blank", text=""), score=0.2),
    ]
    found = LightReranker().postprocess_nodes(odd, query_str="refund")
    assert sorted(order(found)) == ["blank", "image", "nan", "none"]
    assert LightReranker().postprocess_nodes([], query_str="refund") == []
    assert len(LightReranker().postprocess_nodes(nodes(), query_str="???")) == 3
    assert len(LightReranker().postprocess_nodes(nodes(), query_str="")) == 3


def test_nodes_without_scores_keep_their_order_as_rank():
    keeps = LightReranker(retriever_order())
    found = keeps.postprocess_nodes(nodes(scores=(None, None, None)), query_str="refund")
    assert order(found) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("language", "texts", "query"),
    [
        ("german", ("Gebühren im Mai", "Häuser verkaufen", "Katzen"), "Wie verkauft man ein Haus?"),
        ("none", ("猫在睡觉", "如何申请退款", "天气很好"), "退款怎么申请"),
        ("arabic", ("الرسوم", "المدرسة الكبيرة", "القطط"), "أين المدارس الكبيرة؟"),
    ],
)
def test_other_languages_and_scripts(language, texts, query):
    reranker = LightReranker(analyzer=Analyzer(language))
    found = reranker.postprocess_nodes(nodes((texts[0], texts[2], texts[1])), query_str=query)
    assert found[0].text == texts[1]


def test_counting_the_corpus_changes_what_is_rare():
    corpus = [TextNode(text=f"refund number {i}") for i in range(30)] + [TextNode(text="paid")]
    reranker = LightReranker().with_nodes(corpus)
    texts = ("refund refund", "paid once", "cats")
    assert order(reranker.postprocess_nodes(nodes(texts), query_str="refund paid"))[0] == "1"


def test_it_comes_back_from_its_folder(tmp_path):
    corpus = [item.node for item in nodes()]  # words of one text only, too
    reranker = LightReranker(analyzer=Analyzer("german", stop_words=["the"])).with_nodes(corpus)
    reranker.save(tmp_path / "r")
    again = LightReranker.load(tmp_path / "r", top_n=2)
    assert again.analyzer.to_dict() == {"language": "german", "stop_words": ["the"]}
    one = reranker.postprocess_nodes(nodes(), query_str="refund paid")[:2]
    other = again.postprocess_nodes(nodes(), query_str="refund paid")
    assert [(i.node_id, i.score) for i in one] == [(i.node_id, i.score) for i in other]
    assert again.fingerprint == reranker.fingerprint


def test_copies_and_pickles_rank_alike():
    reranker = LightReranker(analyzer=Analyzer("german", stop_words=["wie"]), top_n=2)
    found = reranker.postprocess_nodes(nodes(), query_str="refund paid")
    for other in (copy.deepcopy(reranker), pickle.loads(pickle.dumps(reranker))):
        again = other.postprocess_nodes(nodes(), query_str="refund paid")
        assert [(i.node_id, i.score) for i in again] == [(i.node_id, i.score) for i in found]
        assert other.analyzer.to_dict() == reranker.analyzer.to_dict()


def test_damaged_folders_are_refused(tmp_path):
    reranker = LightReranker().with_nodes([item.node for item in nodes()])
    path = tmp_path / "r"
    with pytest.raises(ArtifactError, match="is not a folder"):
        LightReranker.load(path)
    reranker.save(path)
    config = json.loads((path / "tuning.json").read_text())
    codes, counts = load_file(path / "words.safetensors").values()

    def tampered(**changes):
        return json.dumps({**config, **changes}).encode()

    def words(codes, counts):
        return save({"codes": codes, "counts": counts})

    for name, content, message in (
        ("model.safetensors", b"", "not a safetensors file, or is truncated"),
        ("words.safetensors", b"x", "not a safetensors file, or is truncated"),
        ("tuning.json", b"{", "not valid JSON"),
        ("tuning.json", b'{"format": 1, "kind": "embedding_adapter"}', "holds a 'embedding_adap"),
        ("tuning.json", b'{"format": 1, "kind": "light_reranker"}', "trained on other features"),
        ("tuning.json", b'{"format": 9}', "has format 9"),
        ("tuning.json", tampered(details=5), "details must be a JSON object, got 5"),
        ("tuning.json", tampered(features=5), "trained on other features"),
        ("tuning.json", tampered(analyzer={"language": 5}), "the analyzer's settings are damaged"),
        ("tuning.json", tampered(statistics={"documents": -1, "mean_length": 2}), "do not fit"),
        ("words.safetensors", words(codes, -counts), "codes and counts do not fit"),
        (
            "words.safetensors",
            words(codes, counts.astype(np.float32)),
            "codes and counts do not fi",
        ),
    ):
        reranker.save(path)
        (path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            LightReranker.load(path)
    reranker.save(path)
    (path / "words.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"has no words\.safetensors"):
        LightReranker.load(path)


def test_weights_that_do_not_fit_are_refused():
    ranker = retriever_order()
    tensors = ranker.tensors()
    for name, value, message in (
        ("weights", tensors["weights"][:3], "do not fit its 20 features"),
        ("scale", tensors["scale"] * 0, "do not fit its 20 features"),
        ("calibration", tensors["weights"][:2], "must have 3 numbers or none"),
        ("thresholds", tensors["weights"][:2], "do not fit"),
    ):
        with pytest.raises(ArtifactError, match=message):
            LinearRanker.from_tensors(ranker.features, {**tensors, name: value}, {})
    with pytest.raises(ArtifactError, match="incomplete"):
        LinearRanker.from_tensors(ranker.features, {"mean": tensors["mean"]}, {})


def test_precision_that_was_never_reached_is_named():
    with pytest.raises(ValueError, match="precision must be between 0 and 1, got 2"):
        LightReranker().min_score_for(2)
    with pytest.raises(ValueError, match=r"confidence must be between 0\.5 and 1, got 1"):
        LightReranker().min_score_for(0.9, confidence=1)
    with pytest.raises(ValueError, match=r"no threshold reached precision 0\.99"):
        LightReranker(retriever_order()).min_score_for(0.99)


def test_more_confidence_asks_for_a_higher_score():
    numbers = {
        "thresholds": [0.2, 0.4, 0.6, 0.8],
        "precisions": [0.7, 0.8, 0.85, 0.95],
        "errors": [0.01, 0.02, 0.03, 0.02],
    }
    arrays = {name: np.array(values, np.float32) for name, values in numbers.items()}
    ranker = replace(retriever_order(), **arrays)
    assert ranker.min_score_for(0.79, confidence=0.5) == pytest.approx(0.4)
    assert ranker.min_score_for(0.79) == pytest.approx(0.6)
    with pytest.raises(ValueError, match=r"with confidence 0\.99; the best was 0\.90"):
        ranker.min_score_for(0.93, confidence=0.99)


def test_serving_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from llama_index.core.schema import NodeWithScore, TextNode\n"
        "from llama_index.tuning import LightReranker\n"
        "nodes = [NodeWithScore(node=TextNode(text='a'))]\n"
        "LightReranker().postprocess_nodes(nodes, query_str='a')\n"
        "print(*{'torch', 'sklearn', 'scipy', 'transformers', 'sentence_transformers', 'openai',\n"
        "  'llama_index.tuning.rerankers.light.fit'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_trace_shows_the_re_ranking_as_one_step():
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler

    spans = SimpleSpanHandler()
    dispatcher = get_dispatcher()
    dispatcher.add_span_handler(spans)
    try:
        LightReranker().postprocess_nodes(nodes(), query_str="refund")
    finally:
        dispatcher.span_handlers.remove(spans)
    [step] = [span.id_ for span in spans.completed_spans if "LightReranker" in span.id_]
    assert step.startswith("LightReranker._postprocess_nodes")


def test_a_node_found_twice_comes_once():
    given = nodes()
    found = LightReranker().postprocess_nodes([*given, *given], query_str="How is a refund paid?")
    assert order(found) == order(
        LightReranker().postprocess_nodes(given, query_str="How is a refund paid?")
    )


def test_weights_with_their_signs_turned_are_refused(tmp_path):
    LightReranker().save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(
        save({name: -a if name == "weights" else a for name, a in load_file(file).items()})
    )
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not what was saved"):
        LightReranker.load(tmp_path)
