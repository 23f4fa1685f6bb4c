"""A report for people: the sentence that says it all, a page, a plot.

The page shows what every report has and, of what only some have, whatever it finds under the same
names: `matrix`, `confusions`, `summary`, `shortcuts`, `deferral`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.pages import (
    duration,
    meaning,
    metric_name,
    printable,
    readable_date,
    render,
    words,
)
from llama_index.tuning.pages.figures import Scale, curve_points, direction, plain, signed, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llama_index.tuning.report import FinetuneReport, Gain, Gains

_MOST_CHOICES = 20  # a larger matrix is no longer read; the wrong turns are
_TINT = 34  # per cent of the darkest cell, on which text stays readable
_MOST_EPOCHS = 200


def report_page(report: FinetuneReport, *, whole: bool = True) -> str:
    """The page; or, with `whole=False`, what a notebook shows."""
    groups = [(name, list(gains.items())) for name, gains in report.groups().items()]
    return render(
        "pages/report.html.j2",
        whole=whole,
        title=report.title[:1].upper() + report.title[1:],
        report=report,
        sentence=sentence(report),
        state="good" if report.accepted and report.gains else "kept",
        top=_facts(report),
        **_plotted(report),
        groups=groups,
        best=[item for item in report.queries if item.tuned > item.base],
        words_only="accuracy" in report.primary,
        worst=[item for item in report.queries if item.tuned < item.base],
        meanings=[
            (metric_name(name), meaning(name))
            for name in dict.fromkeys(name for _, gains in groups for name, _ in gains)
            if meaning(name)
        ],
        data=list(_flat(report.data)),
        options=[*_flat(report.options), ("seed", str(report.seed))],
        seconds=[(words(step), duration(spent)) for step, spent in report.seconds.items()],
        versions=list(report.versions.items()),
        history=[
            {name: _text(entry) for name, entry in row.items()}
            for row in report.history[-_MOST_EPOCHS:]
        ],
        history_columns=list(dict.fromkeys(name for row in report.history for name in row)),
        **_of_some_reports(report),
    )


def sentence(report: FinetuneReport) -> str:
    """What the reader wants to know: what is used, what changed, by how much, on what."""
    if report.headline:
        return f"{report.headline[0].upper()}{report.headline[1:]}."
    used = "The tuned component is used" if report.accepted else "The base is kept"
    gain = report.gains.get(report.primary)
    if gain is None:
        return f"{used}; nothing was measured."
    before, now = value(gain.base), value(gain.tuned)
    turn = "rose" if gain.mean > 0 else "fell"
    change = f"stayed at {now}" if now == before else f"{turn} from {before} to {now}"
    why = {
        (True, False): " although no gain is shown",
        (False, False): ", no gain is shown",
    }.get((report.accepted, direction(gain) == "up"), "")
    asked = _isolated(report.measured_on or report.unit)
    metric = _isolated(metric_name(report.primary))
    return (
        f"{used}{why}: {metric} {change} on {gain.n:,} {asked} ({signed(gain.mean)}; "
        f"{gain.confidence:.0%} interval {signed(gain.low)} to {signed(gain.high)})."
    )


def _isolated(text: str) -> str:
    """Text whose direction does not turn the figures beside it."""
    return text if text.isascii() else f"\u2068{text}\u2069"


def _facts(report: FinetuneReport) -> list[tuple[str, str]]:
    """What was tuned, on what, when: (name, text), empty where the report does not say."""
    gain = report.gains.get(report.primary)
    measured = f"{gain.n:,} {report.measured_on or report.unit}, {report.method}" if gain else ""
    took = f"took {duration(sum(report.seconds.values()))}" if report.seconds else ""
    return [
        ("Model", report.model),
        ("Compared with", report.base),
        ("Data", _counts(report.data)),
        ("Measured on", measured),
        ("When", ", ".join(filter(None, (readable_date(report.date), took)))),
    ]


def _counts(data: dict[str, Any]) -> str:
    """The first counts of what was learnt from, and the fingerprint that names it."""
    parts = []
    for name, entry in data.items():
        if _is_count(entry):
            parts.append(f"{entry:,} {words(name)}")
        elif isinstance(entry, dict) and _is_count(entry.get("queries")):
            counted = ("queries", "documents")
            inside = [f"{entry[n]:,} {n}" for n in counted if _is_count(entry.get(n))]
            parts.append(f"{words(name)}: {', '.join(inside)}")
    mark = str(data.get("fingerprint", ""))
    return "; ".join([*parts[:3], *([f"fingerprint {mark[:12]}"] if mark else [])])


def _is_count(entry: Any) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool)


def _plotted(report: FinetuneReport) -> dict[str, Any]:
    """The primary metric of each group; of a single group its metrics."""
    groups = report.groups()
    rows = [
        (name, gains[report.primary]) for name, gains in groups.items() if report.primary in gains
    ]
    caption = f"Gain in {metric_name(report.primary)} over the base"
    if len(rows) < 2:
        rows = [(metric_name(name), gain) for name, gain in report.gains.items()]
        caption = "Gain over the base"
    if rows:
        caption += f", with the {rows[0][1].confidence:.0%} interval; right of zero is better"
    return {"plotted": rows, "plot_caption": caption}


def _flat(entry: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, text) of all that a mapping holds."""
    if isinstance(entry, dict):
        for key, part in entry.items():
            yield from _flat(part, f"{name} · {words(str(key))}" if name else words(str(key)))
    elif isinstance(entry, (list, tuple)):
        yield name, ", ".join(map(_text, entry)) or "none"
    else:
        yield name, _text(entry)


def _text(entry: Any) -> str:
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    if isinstance(entry, (int, float)):
        return plain(entry)
    return "none" if entry is None or entry == "" else str(entry)


def _of_some_reports(report: Any) -> dict[str, Any]:
    """What only some kinds of reports have; empty in the others."""
    choices = getattr(report, "choices", [])
    matrix = []
    if 0 < len(choices) <= _MOST_CHOICES:
        for name, counts in zip(choices, report.matrix, strict=True):
            total = max(1, sum(counts))
            cells = [(count, round(_TINT * count / total)) for count in counts]
            matrix.append((name, cells))
    spans = getattr(report, "intervals", {})
    summary = getattr(report, "summary", {})
    deferral = getattr(report, "deferral", [])
    return {
        "matrix": matrix,
        "confusions": getattr(report, "confusions", []),
        "summary": [(name, number, spans.get(name)) for name, number in summary.items()],
        "shortcuts": list(getattr(report, "shortcuts", {}).items()),
        "deferral": deferral,
        **_curve(deferral),
    }


def _curve(points: list[Any]) -> dict[str, Any]:
    if not points:
        return {}
    lines = [[point.kept_accuracy for point in points]]
    if all(point.accuracy is not None for point in points):
        lines.append([point.accuracy for point in points])
    low, high = min(map(min, lines)), max(map(max, lines))
    shares = [point.share for point in points]
    across, up = (
        Scale(shares[0], max(shares[-1], shares[0] + 1e-9)),
        Scale(low, max(high, low + 1e-9)),
    )
    return {
        "deferral_lines": [curve_points(shares, line, across, up) for line in lines],
        "deferral_low": low,
        "deferral_high": high,
    }


def plot_gains(report: FinetuneReport) -> Figure:
    """One panel for each group of queries, below one another: each metric's gain, its interval."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtraError("plot()", "matplotlib", "plots") from exc

    groups = report.groups()
    if not groups:
        raise ValueError(f"there is nothing to plot: {report.reason}")
    heights = [len(gains) + 1.6 for gains in groups.values()]
    figure = Figure(figsize=(7.5, 0.6 + 0.27 * sum(heights)), layout="constrained")
    alike = len({tuple(gains) for gains in groups.values()}) == 1  # else their scales differ
    panels = figure.subplots(
        len(groups), 1, sharex=alike, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for panel, (name, gains) in zip(panels, groups.items(), strict=True):
        _draw(panel, name, gains)
    panels[-1].set_xlabel("gain over the base")
    return figure


def _draw(panel: Any, name: str, gains: Gains) -> None:
    metrics = list(gains)[::-1]
    for row, metric in enumerate(metrics):
        gain = gains[metric]
        colour = _colour(gain)
        panel.plot([gain.low, gain.high], [row, row], color=colour, linewidth=2.5)
        panel.plot(gain.mean, row, "o", color=colour, markersize=6)
    panel.axvline(0, color="#222222", linewidth=0.8)
    panel.set_yticks(range(len(metrics)), map(_label, metrics), parse_math=False)
    panel.set_ylim(-0.6, len(metrics) - 0.4)
    count = next(iter(gains.values())).n
    title = f"{_label(name, 60)} (n={count})"
    panel.set_title(title, fontsize=10, loc="left", parse_math=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _label(text: str, most: int = 24) -> str:
    """What fits beside or above a panel."""
    kept = str(printable(text))
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def _colour(gain: Gain) -> str:
    return {"up": "#0a6b4b", "down": "#a5301d", "open": "#5d636d"}[direction(gain)]
