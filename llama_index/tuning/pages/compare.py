"""Two saved reports side by side."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from llama_index.tuning._files import PathLike, read_json
from llama_index.tuning.artifacts import REPORT
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.pages.figures import signed, value
from llama_index.tuning.report import FinetuneReport, Gain


def compare_reports(one: PathLike, other: PathLike) -> str:
    """A table of what two runs were, what they gained and on what, for people to read.

    Each gain is over its own run's base on its own queries: the last line says if these are the
    same.

    Args:
        one: a `report.json` of an engine or an app, or the folder that has one.
        other: the same.

    Raises:
        ArtifactError: there is no report.

    Example:
        >>> print(compare_reports("tuned_adapter", "other_adapter"))  # doctest: +SKIP
    """
    reports = read_report(one), read_report(other)
    rows: list[tuple[str, ...]] = [("", str(one), str(other))]
    for name, text in (
        ("what", lambda report: report.title),
        ("model", lambda report: report.model),
        ("verdict", lambda report: report.verdict),
        ("compared with", lambda report: report.base),
        ("measured", _measured),
        ("date", lambda report: report.date),
        ("seconds", lambda report: f"{sum(report.seconds.values()):.1f}"),
    ):
        rows.append((name, *map(text, reports)))
    for group in dict.fromkeys(name for report in reports for name in report.groups()):
        parts = [report.groups().get(group, {}) for report in reports]
        rows += [("", "", ""), (group, *(_count(part) for part in parts))]
        for metric in dict.fromkeys(metric for part in parts for metric in part):
            rows.append((f"  {metric}", *(_gain(part.get(metric)) for part in parts)))
    return "\n".join([*_aligned(rows), "", _same_data(*reports)])


def read_report(path: PathLike) -> FinetuneReport:
    """What every report has, of a report of any kind.

    Raises:
        ArtifactError: there is none.
    """
    file = Path(path)
    file = file / REPORT if file.is_dir() else file
    if not file.is_file():
        raise ArtifactError(f"{path} holds no report: there is no {file}")
    data = read_json(file)
    if isinstance(data, dict) and "ladder" in data:
        data = _of_app(data)
    if not isinstance(data, dict) or not {"title", "primary", "gains", "slices"} <= set(data):
        raise ArtifactError(f"{file} is no report of this package")
    known = {field.name for field in fields(FinetuneReport)}
    return FinetuneReport.from_dict({name: data[name] for name in data.keys() & known})


def _of_app(data: dict[str, Any]) -> dict[str, Any]:
    """An app's report under the names of an engine's."""
    return {
        **data,
        "title": f"app: {data.get('served')}",
        "method": "nested cross-fitting",
        "primary": "ndcg@10",
        "accepted": data.get("changed", False),
        "unit": data.get("kind", "questions"),
        "data": {"fingerprint": data.get("fingerprint", "unknown")},
    }


def _measured(report: FinetuneReport) -> str:
    gain = report.gains.get(report.primary)
    if gain is None:
        return "not measured"
    return f"{gain.n} {report.measured_on or report.unit}, {report.method}"


def _count(part: dict[str, Gain]) -> str:
    return f"n={next(iter(part.values())).n}" if part else "–"


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return "–"
    span = f"{signed(gain.low)} to {signed(gain.high)}"
    return f"{value(gain.base)} → {value(gain.tuned)}  {signed(gain.mean)} ({span})"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [
        f"{name:{widths[0]}}  {first:{widths[1]}}  {second}".rstrip()
        for name, first, second in rows
    ]


def _same_data(one: FinetuneReport, other: FinetuneReport) -> str:
    marks = [report.data.get("fingerprint", "unknown") for report in (one, other)]
    if marks[0] == marks[1] != "unknown":
        return "Both were tuned on the same data."
    return f"Tuned on different data ({marks[0]} and {marks[1]}): each gain is of its own queries."
