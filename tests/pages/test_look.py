"""What a page looks like: contrast of its colours; in a browser, that nothing overflows."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import llama_index.tuning.pages as pages
from llama_index.tuning.pages.report import _TINT
from tests.pages.reports import PAGES

CSS = (Path(pages.__file__).parent / "page.css").read_text()


def palettes():
    blocks = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r"\{[^{}]+\}", CSS)
    ]
    light, dark, printed = [block for block in blocks if "paper" in block]
    return {"light": light, "dark": light | dark, "print": light | printed}


def luminance(colour):
    """Relative luminance, of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def mixed(colour, paper, share):
    ends = [[int(c[at : at + 2], 16) for at in (1, 3, 5)] for c in (colour, paper)]
    return "#" + "".join(
        f"{round(share * a + (1 - share) * b):02x}" for a, b in zip(*ends, strict=True)
    )


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(name):
    colours = palettes()[name]
    for text in ("ink", "soft", "good", "bad", "link", "flat"):
        for behind in ("paper", "panel"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    darkest = mixed(colours["heat"], colours["paper"], _TINT / 100)
    assert contrast(colours["ink"], darkest) >= 4.5


def test_every_colour_is_of_the_palette():
    rules = re.sub(r"--\w+: #\w{6};", "", CSS)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", rules)
    assert set(re.findall(r"var\(--(\w+)\)", CSS)) <= set(palettes()["light"])


def test_wheel_and_sdist_hold_the_templates():
    sdist = pytest.importorskip("hatchling.builders.sdist")
    wheel = pytest.importorskip("hatchling.builders.wheel")
    root = Path(__file__).parents[2]
    wanted = {"page.html.j2", "parts.html.j2", "report.html.j2", "dataset.html.j2", "page.css"}
    for builder in (wheel.WheelBuilder, sdist.SdistBuilder):
        files = builder(str(root)).recurse_included_files()
        assert wanted <= {Path(file.path).name for file in files}


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# The page in a frame of some width; its script, the test's own, writes what is wider than that.
FRAME = """<!doctype html>
<iframe id="f" style="border:0;width:{width}px;height:3000px" srcdoc="{page}"></iframe>
<pre id="said"></pre>
<script>
f.onload = () => {{
  const page = f.contentDocument, wide = [];
  for (const part of page.querySelectorAll("*")) {{
    if (part.closest(".wide, svg") && !part.matches(".wide")) continue;
    if (part.getBoundingClientRect().right > {width} + 1) wide.push(part.outerHTML.slice(0, 99));
  }}
  const svg = page.querySelector(".gain svg");
  said.textContent = JSON.stringify({{
    wide, scroll: page.documentElement.scrollWidth,
    plot: svg ? svg.getBoundingClientRect().width : null,
    text: Math.min(...[...page.querySelectorAll("p, td, th, dd, text")].map(
      part => parseFloat(getComputedStyle(part).fontSize))),
  }});
}};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_in_a_browser(name, width, tmp_path):
    file = tmp_path / "frame.html"
    PAGES[name].save_html(file)
    page = file.read_text(encoding="utf-8").replace("<details>", "<details open>")
    file.write_text(FRAME.format(width=width, page=html.escape(page)))
    shown = run_browser(tmp_path, "--dump-dom", f"--window-size={width},3000", file.as_uri())
    found = json.loads(html.unescape(re.search(r'<pre id="said">(.*?)</pre>', shown, re.S)[1]))
    assert found["wide"] == []
    assert found["scroll"] <= width
    assert found["text"] >= 12
    if name != "unmeasured":
        assert found["plot"] >= 0.5 * min(width, 900)


def run_browser(folder, *arguments):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    flags += "--disable-background-networking --disable-component-update --disable-sync"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *flags.split(), profile, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
