import math

import pytest

from llama_index.tuning.gate import decide
from llama_index.tuning.report import Gain


def gain(low, high, n=100):
    middle = (low + high) / 2
    return Gain(base=0.5, tuned=0.5 + middle, low=low, high=high, n=n, confidence=0.9)


def test_a_shown_gain_is_accepted():
    verdict = decide("ndcg@10", gain(0.01, 0.05))
    assert verdict.accepted
    assert verdict.reason == (
        "the gain is shown: ndcg@10 +0.030 (90% interval +0.010 to +0.050, n=100)"
    )


@pytest.mark.parametrize(
    ("measured", "slices", "words"),
    [
        (gain(-0.01, 0.05), {}, "no gain is shown"),
        (gain(0.0, 0.0), {}, "no gain is shown"),
        (gain(0.0, 0.073), {}, "no gain is shown"),
        (gain(math.nan, math.nan), {}, "no gain is shown: ndcg@10 +nan"),
        (gain(0.01, 0.05), {"old": gain(math.nan, math.nan, n=30)}, "old lose: ndcg@10 +nan"),
        (gain(0.1, 0.3, n=9), {}, "9 measured queries are fewer than 10"),
        (
            gain(0.01, 0.05),
            {"unseen documents": gain(-0.09, -0.01, n=30)},
            "unseen documents lose",
        ),
    ],
)
def test_what_is_not_shown_keeps_the_base_unless_overridden(measured, slices, words):
    verdict = decide("ndcg@10", measured, slices)
    assert not verdict.accepted
    assert words in verdict.reason
    forced = decide("ndcg@10", measured, slices, accept="always")
    assert forced.accepted
    assert words in forced.reason


def test_a_small_slice_or_an_unclear_loss_does_not_refuse():
    slices = {"a": gain(-0.09, -0.01, n=5), "b": gain(-0.09, 0.01, n=500)}
    assert decide("ndcg@10", gain(0.01, 0.05), slices).accepted


def test_unknown_accept_lists_the_right_ones():
    with pytest.raises(ValueError, match="unknown accept 'yes'; choose one of: gain, always"):
        decide("ndcg@10", gain(0, 1), accept="yes")


def test_what_else_is_beaten_must_be_shown_too():
    verdict = decide("accuracy", gain(0.1, 0.3), also={"over the frequencies": gain(0.0, 0.2)})
    assert not verdict.accepted
    assert verdict.reason.startswith("no gain is shown over the frequencies: accuracy +0.100")
    assert decide("accuracy", gain(0.1, 0.3), also={"over it": gain(0.01, 0.2)}).accepted
