from dataclasses import replace

import pytest

from llama_index.tuning.app.report import AppReport
from llama_index.tuning.cli.app import run
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.pages.compare import compare_reports
from tests.pages.reports import ADAPTER, ROUTER


@pytest.fixture
def saved(tmp_path):
    for name, report in (("one", ADAPTER), ("other", replace(ADAPTER, data={"fingerprint": "x"}))):
        (tmp_path / name).mkdir()
        report.save_json(tmp_path / name / "report.json")
    return tmp_path


def test_two_runs_stand_side_by_side(saved):
    text = compare_reports(saved / "one", saved / "other" / "report.json")
    [line] = [line for line in text.splitlines() if line.startswith("  ndcg@10")][:1]
    assert line.count("0.640 → 0.660  +0.020 (+0.008 to +0.032)") == 2
    assert "documents without training queries" in text
    assert "different data (ab12cd34ef567890 and x)" in text
    assert "on the same data" in compare_reports(saved / "one", saved / "one")


def test_reports_of_other_kinds_are_compared_too(saved):
    ROUTER.save_json(saved / "router.json")
    text = compare_reports(saved / "one", saved / "router.json")
    assert "accuracy" in text
    assert "–" in text


def test_what_holds_no_report_is_named(saved):
    with pytest.raises(ArtifactError, match="holds no report"):
        compare_reports(saved, saved / "one")
    (saved / "list.json").write_text("[]")
    with pytest.raises(ArtifactError, match="is no report of this package"):
        compare_reports(saved / "one", saved / "list.json")


def test_an_app_is_compared_too(saved):
    gains = dict.fromkeys(("ndcg@10", "hit_rate@5"), ADAPTER.gains["ndcg@10"])
    app = AppReport(
        served="word fusion",
        kind="questions",
        changed=True,
        shown=True,
        reason="",
        gains=gains,
        fingerprint="ab12cd34ef567890",
    )
    app.save_json(saved / "app.json")
    text = compare_reports(saved / "one", saved / "app.json")
    assert "app: word fusion" in text
    assert "on the same data" in text


def test_the_command_prints_the_table(saved, capsys):
    assert run(["compare", str(saved / "one"), str(saved / "other")]) == 0
    assert "embedding adapter (linear, query side)" in capsys.readouterr().out
