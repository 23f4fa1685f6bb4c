"""A cross-encoder as it is served; the model is a stand-in that counts shared words."""

import asyncio
import time

import numpy as np
import pytest

from llama_index.tuning import LightReranker, TunedReranker
from llama_index.tuning.errors import ArtifactError, TuningError
from llama_index.tuning.rerankers.cross.model import fuse

from .conftest import ids, nodes


class Overlap:
    """Scores pairs by shared words."""

    def predict(self, pairs, **_):
        return [len({*q.lower().split()} & {*t.lower().split()}) for q, t in pairs]


class Weightless(Overlap):
    def save_pretrained(self, folder):
        """There is nothing to save."""


class Broken:
    def predict(self, pairs, **_):
        raise AssertionError("the transformer was asked")


def test_serving_orders_cuts_and_keeps_the_retrieval_score():
    reranker = TunedReranker(Overlap(), top_n=2)
    found = reranker.postprocess_nodes(nodes(), query_str="when is a refund paid")
    assert ids(found) == ["1", "0"]
    assert found[0].metadata["retrieval_score"] == pytest.approx(0.8)
    again = asyncio.run(reranker.apostprocess_nodes(nodes(), query_str="when is a refund paid"))
    assert ids(again) == ids(found)
    assert reranker.postprocess_nodes([], query_str="x") == []


def test_a_model_that_only_predicts_is_not_saved(tmp_path):
    with pytest.raises(TuningError, match="Overlap is not saved"):
        TunedReranker(Overlap()).save(tmp_path / "reranker")
    assert not (tmp_path / "reranker").exists()


def test_async_does_not_block_the_loop():
    class Slow(Overlap):
        def predict(self, pairs, **_):
            time.sleep(0.3)
            return super().predict(pairs)

    async def ticks():
        ranking = asyncio.create_task(
            TunedReranker(Slow()).apostprocess_nodes(nodes(), query_str="refund")
        )
        count = 0
        while not ranking.done():
            await asyncio.sleep(0.01)
            count += 1
        return count, await ranking

    count, found = asyncio.run(ticks())
    assert count > 5
    assert ids(found)[0] == "1"


def test_the_fusion_weight_goes_from_one_to_the_other():
    query = "when is a refund paid"
    only = TunedReranker(Overlap(), fusion_weight=1.0).postprocess_nodes(nodes(), query_str=query)
    assert ids(only) == ["0", "1", "2"]
    logits = np.array([0.0, 1.0, 0.5])
    assert fuse(logits, [np.nan, np.nan, np.nan], 0.5) is logits
    assert fuse(logits, [3.0, np.nan, 1.0], 1.0).argmax() == 0


def test_a_partner_takes_the_place_of_the_retrievers_score():
    query, light = "when is a refund paid", LightReranker()
    alone = light.raw_scores(query, nodes())
    only = TunedReranker(Broken(), fusion_weight=1.0, partner=light)  # needs no transformer
    assert ids(only.postprocess_nodes(nodes(), query_str=query)) == ids(
        light.postprocess_nodes(nodes(), query_str=query)
    )
    mixed = TunedReranker(Overlap(), fusion_weight=0.4, partner=light)
    logits = np.array(Overlap().predict([(query, item.node.text) for item in nodes()]), float)
    np.testing.assert_allclose(mixed.raw_scores(query, nodes()), fuse(logits, alone, 0.4))
    with pytest.raises(TypeError, match="partner must be a LightReranker, got str"):
        TunedReranker(Overlap(), partner="light")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_n": 0}, "top_n must be a whole number >= 1"),
        ({"fusion_weight": 2}, "fusion_weight must be a number from 0 to 1, got 2"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"min_score": 0.5}, "min_score needs a calibrated re-ranker"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TunedReranker(Overlap(), **arguments)


def test_a_missing_query_and_odd_outputs_are_named():
    class Odd:
        def predict(self, pairs, **_):
            return [float("nan")] * len(pairs)

    with pytest.raises(ValueError, match="a re-ranker needs the query"):
        TunedReranker(Overlap()).postprocess_nodes(nodes())
    with pytest.raises(ArtifactError, match="one finite number for each of 3 pairs"):
        TunedReranker(Odd()).postprocess_nodes(nodes(), query_str="x")


def test_damaged_folders_are_refused(tmp_path):
    (tmp_path / "tuning.json").write_text('{"format": 1, "kind": "cross_encoder"}')
    with pytest.raises(ArtifactError, match="the settings are damaged"):
        TunedReranker.load(tmp_path)
    TunedReranker(Weightless()).save(tmp_path / "r")
    settings = (tmp_path / "r" / "tuning.json").read_text()
    for old, new, message in (
        ('"calibration": []', '"calibration": [1, 2]', "must have 3 numbers or none"),
        ('"thresholds": []', '"thresholds": [0.5]', "do not fit"),
        ('"fusion_weight": 0.0', '"fusion_weight": "x"', "the settings are damaged"),
        ('"kind": "cross_encoder"', '"kind": "judge"', "holds a 'judge'"),
    ):
        assert old in settings
        (tmp_path / "r" / "tuning.json").write_text(settings.replace(old, new))
        with pytest.raises(ArtifactError, match=message):
            TunedReranker.load(tmp_path / "r")
    with pytest.raises(ArtifactError, match="is not a folder"):
        TunedReranker.load(tmp_path / "none")
