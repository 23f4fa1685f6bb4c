import re
from dataclasses import replace

import pytest

from llama_index.tuning.report import FinetuneReport, Gain

GAIN = Gain(base=0.64, tuned=0.66, low=0.012, high=0.03, n=668, confidence=0.9)
OTHER = replace(GAIN, tuned=0.65, low=0.002)


@pytest.fixture
def report():
    return FinetuneReport(
        title="embedding adapter <linear>",
        method="5-fold cross-fitting",
        primary="ndcg@10",
        gains={"ndcg@10": GAIN, "mrr@10": GAIN},
        slices={"documents without training queries": {"ndcg@10": OTHER, "mrr@10": OTHER}},
        accepted=True,
        reason="the gain is shown",
        notes=["a note"],
        data={"queries": 668},
    )


def test_the_table_holds_what_a_reader_needs(report):
    text = str(report)
    assert text.startswith("embedding adapter <linear>: ACCEPTED\nthe gain is shown")
    assert "all queries (n=668, 5-fold cross-fitting)" in text
    assert re.search(r"ndcg@10 +0\.6400 +0\.6600 +\+0\.0200 +\+0\.0120 to \+0\.0300", text)
    assert text.endswith("note: a note")


def test_no_table_is_shown_twice(report):
    same = replace(report, slices={**report.slices, "against no re-ranker": dict(report.gains)})
    assert list(same.groups()) == [
        "all queries, against no re-ranker",
        "documents without training queries",
    ]
    assert str(same).count("0.6600") == len(report.gains)


def test_json_comes_back_equal(report, tmp_path):
    report.save_json(tmp_path / "report.json")
    assert FinetuneReport.from_json(tmp_path / "report.json") == report


def test_html_is_one_page_that_escapes_text(report, tmp_path):
    report.save_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mbedding adapter &lt;linear&gt;" in page
    assert "<linear>" not in page
    assert "The tuned component is used" in page


def test_the_plot_has_a_panel_for_each_group(report):
    axes = report.plot().axes
    assert [a.get_title(loc="left") for a in axes] == [
        "all queries (n=668)",
        "documents without training queries (n=668)",
    ]


def test_a_plots_labels_do_not_collide_and_are_no_formulas(report):
    many = {f"against {name} $x_{{": dict(report.gains) for name in "abcde"}
    more = {name: {**gains, "recall@10": OTHER} for name, gains in many.items()}
    figure = replace(report, slices={**report.slices, **more, "\ud800": dict(report.gains)}).plot()
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.get_yticklabels()]
    texts += [axes._left_title for axes in figure.axes]
    boxes = [text.get_window_extent() for text in texts]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place]), texts[place]


def test_panels_of_other_metrics_are_labelled_by_their_own(report):
    other = {"log-likelihood": Gain(base=-5, tuned=-1, low=3, high=5, n=20, confidence=0.9)}
    figure = replace(report, slices={"held-out conversations": other}).plot()
    figure.canvas.draw()
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["mrr@10", "ndcg@10"], ["log-likelihood"]]
