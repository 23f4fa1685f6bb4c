"""Tables that people have become datasets, and what cannot be used is counted."""

import csv
import json
from types import SimpleNamespace

import pytest
from llama_index.core.schema import TextNode

from llama_index.tuning import JudgmentDataset, RetrievalDataset, RoutingDataset
from llama_index.tuning.datasets.formats.shapes import TEMPLATES
from llama_index.tuning.errors import DatasetError

ROWS = [
    {"question": "How high is the fee?", "passage": "The fee is 5 euros."},
    {"question": 'Is it "free"?\nReally', "passage": "Cards are free; größer, 日本."},
]
NODES = [
    TextNode(id_="a", text="Prices. The fee is 5 euros. Bye.", metadata={"page_label": "1"}),
    TextNode(id_="b", text="Cards are free; größer, 日本.", metadata={"page_label": "12"}),
    TextNode(id_="c", text="Opening hours are 8 to 5.", metadata={"page_label": "12"}),
]


def write(path, rows, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_table(kind, tmp_path):
    path = tmp_path / f"questions.{kind.partition('-')[0]}"
    if kind.startswith(("csv", "tsv")):
        mark = {"csv": ",", "csv-semicolon": ";", "tsv": "\t", "csv-bom": ","}[kind]
        return write(path, ROWS, mark, "utf-8-sig" if kind == "csv-bom" else "utf-8")
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind in ("xlsx", "frame", "parquet"):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(ROWS)
        if kind == "frame":
            return frame
        pytest.importorskip("openpyxl" if kind == "xlsx" else "pyarrow")
        (frame.to_excel if kind == "xlsx" else frame.to_parquet)(path, index=False)
    else:
        return iter(ROWS)
    return str(path)


@pytest.mark.parametrize(
    "kind",
    ["csv", "csv-semicolon", "csv-bom", "tsv", "jsonl", "json", "xlsx", "parquet", "frame", "rows"],
)
def test_every_kind_of_table_gives_the_same_dataset(tmp_path, kind):
    dataset = RetrievalDataset.from_table(as_table(kind, tmp_path))
    assert list(dataset.queries.values()) == [row["question"] for row in ROWS]
    assert list(dataset.corpus.values()) == [row["passage"] for row in ROWS]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("passage", "The fee is 5 euros.", ["a"]),
        ("answer", "5 EUROS", ["a"]),
        ("node_id", "c", ["c"]),
        ("page", "12", ["b", "c"]),
        ("page", 12.0, ["b", "c"]),
        ("node_id", ["a", "c"], ["a", "c"]),
        ("passage", "['The fee is 5 euros.', 'Opening hours are 8 to 5.']", ["a", "c"]),
    ],
)
def test_what_a_row_names_is_found_among_the_nodes(column, value, expected):
    dataset = RetrievalDataset.from_table([{"question": "q", column: value}], nodes=NODES)
    assert dataset.relevant_docs == {"q0": expected}
    named = [{"Frage": "q", "Quelle": value}]
    again = RetrievalDataset.from_table(named, question="Frage", nodes=NODES, **{column: "Quelle"})
    assert again.relevant_docs == dataset.relevant_docs


def test_rows_that_cannot_be_used_are_counted():
    rows = [
        *ROWS,
        {"question": "", "passage": "x"},
        {"question": "q", "passage": float("nan")},
        {"question": "q", "passage": "Nobody wrote this."},
    ]
    with pytest.warns(UserWarning, match="3 of 5 rows are left out") as caught:
        dataset = RetrievalDataset.from_table(rows, nodes=NODES)
    assert len(dataset) == 2
    for reason in ("1 row: no question", "1 row: no passage", "1 row: no node holds its"):
        assert reason in str(caught[0].message)


def test_an_answer_that_stands_everywhere_says_nothing():
    nodes = [TextNode(text=f"Yes, page {n}") for n in range(9)]
    with pytest.raises(DatasetError, match="its answer stands in more than 5 nodes"):
        RetrievalDataset.from_table([{"question": "q", "answer": "yes"}], nodes=nodes)


def test_pages_of_several_files_need_the_file():
    nodes = [
        TextNode(id_=n, text=n, metadata={"page_label": "1", "file_name": f"{n}.pdf"}) for n in "ab"
    ]
    rows = [{"question": "q", "page": "1", "document": "reports/b.pdf"}]
    with pytest.raises(DatasetError, match=r"page '1' is in 2 files \(a.pdf, b.pdf\); file="):
        RetrievalDataset.from_table(rows, nodes=nodes)
    dataset = RetrievalDataset.from_table(rows, page="page", file="document", nodes=nodes)
    assert dataset.relevant_docs == {"q0": ["b"]}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"question": "Frage"}, DatasetError, "no column 'Frage'; its columns are 'question'"),
        ({"passage": "passage", "answer": "question"}, ValueError, "one of node_id=, passage="),
        ({"answer": "passage"}, ValueError, "answer= needs nodes="),
        ({"nodes": ["a"]}, TypeError, r"nodes\[0\] must be a node, got str"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        RetrievalDataset.from_table(ROWS, **arguments)


@pytest.mark.parametrize("table", [3, {"question": "q"}, ["q"], b"x"])
def test_what_is_no_table_is_named(table):
    with pytest.raises(TypeError, match="table must"):
        RetrievalDataset.from_table(table)


def test_a_question_of_several_rows_is_one_query():
    rows = [{"question": q, "passage": p} for q, p in [("Fee?", "a"), ("fee? ", "b")]]
    assert RetrievalDataset.from_table(rows).relevant_docs == {"q0": ["p0", "p1"]}


@pytest.mark.parametrize("from_file", [True, False])
def test_a_labelled_rag_dataset(tmp_path, from_file):
    # As core wrote it until it dropped the class; its files are still there.
    example = {
        "query": "Fee?",
        "query_by": None,
        "reference_contexts": ["The fee is 5 euros."],
        "reference_answer": "5",
    }
    given = SimpleNamespace(examples=[SimpleNamespace(**example)])
    if from_file:
        given = tmp_path / "rag.json"
        given.write_text(json.dumps({"examples": [example]}))
    assert RetrievalDataset.from_rag_dataset(given, nodes=NODES).relevant_docs == {"q0": ["a"]}
    assert RetrievalDataset.from_rag_dataset(given).corpus == {"p0": "The fee is 5 euros."}


@pytest.mark.parametrize("names", [("user_input", "reference_contexts"), ("question", "contexts")])
def test_a_ragas_test_set_of_either_generation(tmp_path, names):
    rows = [{names[0]: "Fee?", names[1]: ["The fee is 5 euros."]}]
    path = write(tmp_path / "testset.csv", rows)
    for given in (rows, path):
        assert RetrievalDataset.from_ragas(given).corpus == {"p0": "The fee is 5 euros."}
    with pytest.raises(DatasetError, match="a ragas test set has user_input"):
        RetrievalDataset.from_ragas([{"q": "x"}])


def test_pairs_and_input_examples():
    class InputExample:
        def __init__(self, texts, label=0):
            self.texts, self.label = texts, label

    pair = ("Fee?", "5 euros.")
    for given in (
        [pair],
        [InputExample(pair)],
        [InputExample(pair, 1.0), InputExample(("Fee?", "Cards."), 0)],
        [InputExample((*pair, "not this"))],
    ):
        assert RetrievalDataset.from_pairs(given).corpus == {"p0": "5 euros."}
    with pytest.raises(DatasetError, match="pair 0 must be a question and a passage"):
        RetrievalDataset.from_pairs(["text"])


def test_routes_and_judgments(tmp_path):
    path = tmp_path / "routes.csv"
    path.write_text(TEMPLATES["routing"] + "unlabelled,\n")
    with pytest.warns(UserWarning, match="1 of 3 rows are left out .*1 row: no choice"):
        routes = RoutingDataset.from_table(path)
    assert [example.choices for example in routes.examples] == [("orders",), ()]
    path.write_text(TEMPLATES["judgments"] + "q,a,maybe\n")
    with pytest.warns(UserWarning, match="1 of 3 rows are left out"):
        judged = JudgmentDataset.from_table(path)
    assert [(j.passing, j.source) for j in judged.judgments] == [(True, "human"), (False, "human")]


def test_every_template_loads(tmp_path):
    for kind, loads in {
        "retrieval": RetrievalDataset, "routing": RoutingDataset, "judgments": JudgmentDataset,
    }.items():  # fmt: skip
        path = tmp_path / f"{kind}.csv"
        path.write_text(TEMPLATES[kind])
        assert len(loads.from_table(path)) > 0


def test_capitals_of_column_names_do_not_matter():
    rows = [{"No.": 1, "Question": "How high is the fee?", "ANSWER": "The fee is 5 euros."}]
    assert RetrievalDataset.from_table(rows, nodes=NODES).relevant_docs == {"q0": ["a"]}
    both = [{"question": "How high is the fee?", "Question": "x", "passage": "The fee is 5 euros."}]
    assert list(RetrievalDataset.from_table(both).queries.values()) == ["How high is the fee?"]
    routes = RoutingDataset.from_table([{"Question": q, "Choice": q} for q in "ab"])
    assert set(routes.choices) == {"a", "b"}
    judged = JudgmentDataset.from_table([{"Question": "q", "Answer": "a", "Verdict": "yes"}])
    assert judged.judgments[0].query == "q"
    with pytest.raises(DatasetError, match=r"no column 'question'; .*'Frage'.*in from_table"):
        RetrievalDataset.from_table([{"Frage": "q", "passage": "p"}])


def test_a_table_in_another_encoding_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_bytes("question,answer\nWie hoch?,Fünf\n".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"not UTF-8 text: .*; save it as UTF-8"):
        RetrievalDataset.from_table(path, nodes=NODES)
