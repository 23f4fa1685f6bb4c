"""The ladder of README and start page, drawn from the report of `make demo`.

python docs/_site/ladder.py demo_output/report.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llama_index.tuning.pages.figures import Scale

PICTURE = Path(__file__).resolve().parents[1] / "pictures" / "ladder.svg"
LEFT, RIGHT, ROW, TOP = 330, 120, 30, 34
WIDTH = 760


def drawn(report: dict[str, Any], style: str) -> str:
    """Each stack's gain in nDCG@10 over the app before, its interval, the served one in bold."""
    rungs = report["ladder"][1:]
    gains = [rung["gain"] for rung in rungs]
    scale = Scale.of(end for g in gains for end in (g["low"], g["high"]))

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * scale.at(value) / 100, 1)

    bottom = TOP + ROW * len(rungs)
    parts = [
        f'<text class="small mid" x="{x(tick)}" y="20">{text}</text>'
        f'<line x1="{x(tick)}" y1="28" x2="{x(tick)}" y2="{bottom}" stroke="var(--line)" '
        f'stroke-width="{1.5 if tick == 0 else 0.5}"/>'
        for tick, text in scale.ticks()
    ]
    for row, (rung, gain) in enumerate(zip(rungs, gains, strict=True)):
        y = TOP + ROW * row + ROW / 2
        name = (
            rung["name"].replace("retriever with adapter", "adapter").removeprefix("retriever + ")
        )
        colour = "good" if gain["low"] > 0 else "soft"
        bold = ' style="font-weight:700"' if rung["taken"] else ""
        mean = gain["tuned"] - gain["base"]
        parts += [
            f'<text{bold} x="8" y="{y + 5:g}">{name}</text>',
            f'<line x1="{x(gain["low"])}" y1="{y:g}" x2="{x(gain["high"])}" y2="{y:g}" '
            f'stroke="var(--{colour})" stroke-width="{5 if rung["taken"] else 3}" '
            'stroke-linecap="round"/>',
            f'<circle cx="{x(mean)}" cy="{y:g}" r="6" fill="var(--{colour})"/>',
            f'<text{bold} class="end" x="{WIDTH - 8}" y="{y + 5:g}">{mean:+.3f}'
            f"{' served' if rung['taken'] else ''}</text>",
        ]
    n, share = gains[0]["n"], gains[0]["confidence"]
    parts.append(
        f'<text class="small" x="8" y="{bottom + 22}">Gain in nDCG@10 over the app before '
        f"({gains[0]['base']:.3f}), {share:.0%} intervals, {n} questions on Python's language "
        "reference</text>"
    )
    title = "Gain in nDCG@10 of each stack over the app before"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pic" viewBox="0 0 {WIDTH} {bottom + 32}" '
        f'role="img">\n<title>{title}</title>\n{style}\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    other = (PICTURE.parent / "gate.svg").read_text()
    style = other[other.index("<style>") : other.index("</style>") + len("</style>")]
    PICTURE.write_text(drawn(json.loads(Path(sys.argv[1]).read_text()), style))
