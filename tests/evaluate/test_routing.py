import numpy as np
import pytest
from llama_index.core.output_parsers.base import OutputParserException

from llama_index.tuning import RoutingDataset
from llama_index.tuning.evaluate.routing import (
    auroc,
    calibration_error,
    confusions,
    deferral_curve,
    evaluate_selector,
    macro_f1,
    out_of_scope_recall,
    set_scores,
)
from tests.selectors import ScriptedSelector


def test_calibration_error_by_hand():
    assert calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]) == pytest.approx(0.15)
    assert calibration_error([1.0, 0.5], [1, 0], bins=2) == pytest.approx(0.25)


def test_out_of_scope_recall_and_auroc_by_hand():
    inside, outside = np.arange(100), np.array([-1, 2, 50, 99])
    assert out_of_scope_recall(inside, outside, in_scope_recall=0.95) == 0.5
    assert auroc([2, 3], [0, 1]) == 1.0
    with pytest.raises(ValueError, match="in_scope_recall must be between 0 and 1"):
        out_of_scope_recall([1], [1], in_scope_recall=2)


def test_macro_f1_counts_the_classes_that_occur():
    assert macro_f1([0, 0, 1], [0, 0, 1]) == 1.0
    assert macro_f1([0, 1], [0, 2]) == 0.5


def test_confusions_come_with_their_queries():
    found = confusions("aab", "bba", ["1", "2", "3"])
    assert (found[0].true, found[0].predicted, found[0].queries) == ("a", "b", ["1", "2"])


def test_the_deferral_curve_hands_over_the_least_certain_first():
    curve = deferral_curve([0.1, 0.9, 0.5], [0, 1, 1], [1, np.nan, np.nan], shares=[0, 1 / 3, 1])
    assert [point.accuracy for point in curve] == [pytest.approx(2 / 3), 1.0, 1.0]
    assert curve[1].threshold == 0.5


def test_selecting_nothing_is_right_where_nothing_is_wanted():
    exact, recall = set_scores([["a"], [], ["a"]], [["a", "b"], [], []])
    assert exact.tolist() == [0, 1, 0]
    assert recall.tolist() == [0.5, 1, 0]


class Replying(ScriptedSelector):
    """Selects by number, as an LLM's reply says it; `None` for one that cannot be read."""

    def __init__(self, replies):
        self.replies = list(replies)

    def number(self, choices, query):
        number = self.replies.pop(0)
        if number is None:
            raise OutputParserException("Got invalid JSON object.")
        return number - 1


def test_replies_that_name_no_choice_are_wrong_and_end_nothing():
    data = RoutingDataset.from_pairs([(f"q{n}", "ab"[n % 2]) for n in range(4)])
    scores = evaluate_selector(Replying([1, None, 7, 0]), data)
    assert scores.exact.tolist() == [1, 0, 0, 0]
    assert "invalid JSON" in scores.failed[1]
    assert scores.failed[2] == "it selected number 7 of 2 choices"
    assert "number 0 of 2" in scores.failed[3]
