import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from llama_index.tuning.gate import MIN_QUERIES
from llama_index.tuning.pages.figures import FEW
from llama_index.tuning.pages.report import report_page, sentence
from llama_index.tuning.report import FinetuneReport, most_changed
from tests.pages.reports import (
    ADAPTER,
    ALL,
    EVIL,
    HOSTILE,
    JUDGE,
    ROUTER,
    UNMEASURED,
    app_report,
    gain,
)

EMPTY = {"meta", "br", "line", "circle", "polyline"}


class Page(HTMLParser):
    """The tags, attributes and visible text of a page that is well-formed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(params=ALL)
def report(request):
    return ALL[request.param]


@pytest.mark.parametrize("whole", [True, False])
def test_a_page_is_well_formed_and_needs_nothing_else(report, whole):
    page = Page(report_page(report, whole=whole))
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href"} & names
    assert not [name for name in names if name.startswith("on")]
    assert ("html" in page.tags) == whole


def test_an_app_has_its_ladder_and_the_questions_that_moved():
    text = Page(app_report("word fusion")._repr_html_()).text
    ladder = text[text.index("The ladder") : text.index("The choice itself")]
    assert "the app before n=668 +0.000" in ladder
    assert "word fusion (served) 0.640 0.700 2.0" in ladder
    assert "1,340 nodes" in text
    better, worse = text[text.index("Got better") :].split("Got worse")
    assert better.count("rank 7 → 1") == 5
    assert "rank 1 → beyond 10" in worse


def test_an_apps_page_is_well_formed_and_hostile_texts_are_only_text():
    page = Page(app_report(EVIL)._repr_html_())
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text


def test_hostile_texts_are_only_text():
    page = Page(report_page(HOSTILE))
    assert "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></title>" in page.text
    assert "{{7*7}}{%raw%}" in page.text
    unwanted = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\u202a-\u202e]")
    assert not unwanted.search(report_page(HOSTILE))


def test_the_first_sentence_says_what_is_used_and_on_what():
    assert sentence(ADAPTER) == (
        "The tuned component is used: nDCG@10 rose from 0.640 to 0.660 on 668 queries "
        "(+0.020; 90% interval +0.008 to +0.032)."
    )
    assert sentence(JUDGE).startswith("The base is kept, no gain is shown: balanced accuracy rose")
    assert "on 40 verdicts" in sentence(JUDGE)
    assert "although no gain is shown" in sentence(replace(JUDGE, accepted=True))
    assert "on 668 sentences" in sentence(replace(ADAPTER, measured_on="sentences"))
    tiny = replace(ADAPTER, gains={"ndcg@10": gain(0.64, 0.6401, -0.01, 0.01)})
    assert "stayed at 0.640 on" in sentence(tiny)
    assert sentence(UNMEASURED) == "The base is kept; nothing was measured."


def test_the_top_says_model_data_and_date():
    text = Page(report_page(ADAPTER)).text
    top = text[: text.index("What changed")]
    assert "all-MiniLM-L6-v2" in top
    assert "labelled: 668 queries, 349 documents; fingerprint ab12cd34ef56" in top
    assert "29 November 2026, 09:25 UTC, took 1 min 27 s" in top


def test_the_plot_shows_each_group_and_the_table_each_metric():
    html = report_page(ADAPTER)
    text = Page(html).text
    plot = text[text.index("Gain in nDCG@10") : text.index("All queries n=668")]
    assert "documents with training queries n=450 +0.030" in plot
    assert "documents without training queries n=218 −0.005" in plot
    assert "hit rate@10 0.640 0.660 +0.020 +0.008 to +0.032" in text
    assert html.count('class="zero"') == 3 + 3 * 3  # the plot's rows, and each table's


def test_few_queries_show_nothing():
    assert FEW == MIN_QUERIES
    few = replace(ADAPTER, slices={"rare": {"ndcg@10": gain(0.2, 0.8, 0.4, 0.8, n=FEW - 1)}})
    html = report_page(few)
    assert "too few to say" in html
    assert html.count('class="track up"') == 1 + 3  # all queries in the plot; the table's metrics
    some = replace(few, gains=few.slices["rare"], accepted=False)
    assert sentence(some).startswith("The base is kept, no gain is shown")


def test_the_queries_that_changed_most_come_with_their_documents():
    text = Page(report_page(ADAPTER)).text
    better, worse = text[text.index("Got better") :].split("Got worse")
    assert better.count("0.387 → 1.000") == 5
    assert "2 more" in better
    assert worse.count("1.000 → 0.430") == 2
    assert "recognised over the rental period" in better


def test_what_only_some_reports_have_is_shown():
    router, judge = Page(report_page(ROUTER)).text, Page(report_page(JUDGE)).text
    assert "2 lost card 3 32 1" in router
    assert "3 card arrival → lost card Where is my card?" in router
    assert "50% 0.910 0.885" in router
    assert "AUROC" in judge
    assert "0.700 0.660 to 0.740" in judge
    assert "length only 0.520 0.800 0.000" in judge


def test_a_report_shows_itself_in_a_notebook():
    html = ADAPTER._repr_html_()
    assert html == report_page(ADAPTER, whole=False)
    assert re.findall(r"^(?!\s|\.lit|@|[}/]).*\{", html, re.M) == []  # no rule beyond the page


def test_the_changed_queries_come_back_from_json(tmp_path):
    ADAPTER.save_json(tmp_path / "report.json")
    assert FinetuneReport.from_json(tmp_path / "report.json") == ADAPTER
    old = {k: v for k, v in ADAPTER.to_dict().items() if k not in ("queries", "model", "date")}
    assert FinetuneReport.from_dict(old).queries == []


def test_most_changed_keeps_the_ends_and_short_texts():
    base, tuned = [0.5, 0.5, 0.5, 0.5, 0.1], [0.9, 0.5, 0.2, 0.4, 0.2]
    found = most_changed(base, tuned, lambda row: (f"q{row}", EVIL * 9, [EVIL] * 5), most=1)
    assert [(item.id, item.base, item.tuned) for item in found] == [
        ("q0", 0.5, 0.9),
        ("q2", 0.5, 0.2),
    ]
    assert len(found[0].documents) == 2
    for text in (found[0].query, *found[0].documents):
        assert len(text) <= 300
        text.encode("utf-8")


def test_an_engine_names_model_date_and_queries():
    from llama_index.tuning import LightRerankerFinetuneEngine, RelevanceDataset

    labels = {f"q{i}": {f"d{(i + 1) % 12}": 0, f"d{i}": 1} for i in range(12)}
    queries = {f"q{i}": f"how does part{i} work" for i in range(12)}
    corpus = {f"d{i}": f"All about part{i}." for i in range(12)}
    dataset = RelevanceDataset.from_labels(queries, corpus, labels)
    report = LightRerankerFinetuneEngine(dataset).finetune()
    assert re.match(r"20\d\d-\d\d-\d\dT", report.date)
    assert report.queries or not report.gains["ndcg@10"].mean
    for item in report.queries:
        assert item.documents == [corpus["d" + item.id[1:]]]
