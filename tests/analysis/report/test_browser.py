"""The report in a real browser: light, dark and on a phone nothing overflows, overlaps, is cut off or too small."""

from __future__ import annotations

import html
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from analysis.report import ReportInput, render_comparison_html, render_html
from analysis.results import BlockContrast
from tests.analysis.report.fleet_sample import fleet_sample
from tests.analysis.report.sample import three_arm_sample
from tests.browser import accessibility_faults, browse, colour_scheme, find_chromium

CSS = Path(__file__).parents[3] / "analysis/report/templates/report.css"

# Runs inside the page: what sticks out of the window, texts of charts that meet or are cut, and the smallest letters.
PROBE = """
<script>
addEventListener("load", () => {
  const out = {beyond: [], meet: [], cut: [], small: []};
  const sizeOf = (node) => parseFloat(getComputedStyle(node).fontSize);
  for (const node of document.body.querySelectorAll("*")) {
    const box = node.getBoundingClientRect(), start = node.outerHTML.slice(0, 80);
    const scrolls = node.closest(".scroll, pre, svg");
    if (!scrolls && box.width && (box.right > innerWidth + 1 || box.left < -1)) out.beyond.push(start);
    if (!node.closest("svg") && node.childNodes.length && sizeOf(node) < 11.9) out.small.push(start);
  }
  for (const chart of document.querySelectorAll("svg")) {
    const frame = chart.getBoundingClientRect(), scale = frame.width / chart.viewBox.baseVal.width;
    const texts = [...chart.querySelectorAll("text")].map((node) => [node, node.getBoundingClientRect()]);
    texts.forEach(([node, box], place) => {
      if (sizeOf(node) * scale < 9.5) out.small.push(node.textContent);
      const across = box.left < frame.left - 2 || box.right > frame.right + 2;
      if (across || box.top < frame.top - 2 || box.bottom > frame.bottom + 2) out.cut.push(node.textContent);
      for (const [other, its] of texts.slice(place + 1))
        if (Math.min(box.right, its.right) - Math.max(box.left, its.left) > 1 &&
            Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top) > 4)
          out.meet.push(node.textContent + " / " + other.textContent);
    });
  }
  out.width = innerWidth;
  out.scroll = document.documentElement.scrollWidth;
  out.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  out.ground = getComputedStyle(document.documentElement).backgroundColor;
  parent.document.getElementById("found").textContent = JSON.stringify(out);
});
</script>
"""


class View(NamedTuple):
    name: str
    width: int
    dark: bool


VIEWS = (View("light", 1000, dark=False), View("dark", 1000, dark=True), View("phone", 390, dark=False))


@pytest.fixture(scope="session")
def chromium() -> str:
    return find_chromium()


def probe(chromium: str, folder: Path, document: str, view: View) -> dict[str, object]:
    """Lay the document out in a frame `view.width` wide (a window can't be that narrow) and read the probe's answer."""
    open_to_scripts = re.sub(r"<meta http-equiv[^>]*>", "", document).replace("</body>", PROBE + "</body>")
    wrapper = folder / "wrapper.html"
    frame = (
        f'<iframe style="width:{view.width}px;height:900px;border:0" srcdoc="{html.escape(open_to_scripts)}"></iframe>'
    )
    wrapper.write_text(f'<!doctype html><meta charset="utf-8"><pre id="found"></pre>{frame}', encoding="utf-8")
    dumped = browse(
        chromium, folder, colour_scheme(dark=view.dark), "--window-size=1200,1000",
        "--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri(),
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found is not None
    answer = json.loads(html.unescape(found.group(1)))
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="session")
def documents(document: str) -> dict[str, str]:
    """The pages to look at: a switchback, a rollout over a fleet, one of several arms, two runs beside each other."""
    fleet = fleet_sample()
    return {
        "switchback": document,
        "rollout": render_html(fleet),
        "arms": render_html(three_arm_sample()),
        "comparison": render_comparison_html(fleet, replace(fleet, run_id="13")),
    }


PAGES = ("switchback", "rollout", "arms", "comparison")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_nothing_overflows_overlaps_or_is_too_small(
    chromium: str, tmp_path: Path, documents: dict[str, str], view: View, page: str
) -> None:
    found = probe(chromium, tmp_path, documents[page], view)
    assert found["width"] == view.width
    assert found["scroll"] == view.width
    assert found["dark"] is view.dark
    assert found["ground"] == ("rgb(22, 24, 28)" if view.dark else "rgb(255, 255, 255)")
    assert {key: found[key] for key in ("beyond", "meet", "cut", "small")} == {
        "beyond": [], "meet": [], "cut": [], "small": [],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_accessibility_fault(
    chromium: str, tmp_path: Path, documents: dict[str, str], page: str, dark: bool
) -> None:
    assert accessibility_faults(chromium, tmp_path, documents[page], dark=dark) == []


def test_axe_does_find_a_fault(chromium: str, tmp_path: Path) -> None:
    faulty = '<!doctype html><html lang="en"><title>t</title><body><main><h1>t</h1><p style="color:#ccc">pale</p>'
    faults = accessibility_faults(chromium, tmp_path, faulty + '<img src="data:,"></main></body></html>')
    assert any("image-alt" in fault for fault in faults)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "unit"), [(1e7, "count"), (1e3, "misses per 1000 instructions"), (1e-6, "count")])
def test_charts_have_room_for_any_numbers(
    chromium: str, tmp_path: Path, content: ReportInput, factor: float, unit: str
) -> None:
    def scaled(row: BlockContrast) -> BlockContrast:
        return replace(row, control_value=row.control_value * factor, treatment_value=row.treatment_value * factor)

    findings = replace(
        content.findings,
        contrasts=tuple(map(scaled, content.findings.contrasts)),
        estimates=tuple(
            replace(row, unit=unit, lift=row.lift and row.lift * 30, difference=None, treatment="a-longer-name")
            for row in content.findings.estimates
        ),
    )
    found = probe(chromium, tmp_path, render_html(replace(content, findings=findings)), VIEWS[0])
    assert (found["cut"], found["meet"]) == ([], [])


@pytest.mark.slow
def test_names_without_a_blank_do_not_widen_the_page(chromium: str, tmp_path: Path, samples: ModuleType) -> None:
    long = "x" * 300
    content = samples.sample()
    wide = replace(
        content, experiment=long, hypothesis=long, launched_by=long, run_id=long, spec=long, command=long,
        environment=((long, long),), findings=replace(content.findings, reason=long, warnings=(long,)),
        events=(replace(content.events[0], detail=long),),
    )  # fmt: skip
    found = probe(chromium, tmp_path, render_html(wide), VIEWS[2])
    assert (found["scroll"], found["beyond"]) == (390, [])


def test_probe_sees_each_fault(chromium: str, tmp_path: Path) -> None:
    texts = "".join(f'<text x="{x}" y="20" font-size="{size}">{x}</text>' for x, size in ((5, 14), (9, 14), (396, 8)))
    faulty = f'<body><div style="width:2000px">wide</div><svg width="400" viewBox="0 0 400 40">{texts}</svg></body>'
    found = probe(chromium, tmp_path, faulty, VIEWS[0])
    assert (found["meet"], found["cut"], found["small"]) == (["5 / 9"], ["396"], ["396"])
    assert len(str(found["beyond"])) > 10
    assert found["scroll"] == 2008


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_screenshot_can_be_taken(chromium: str, tmp_path: Path, document: str, view: View) -> None:
    page = tmp_path / "report.html"
    page.write_text(document, encoding="utf-8")
    picture = tmp_path / f"{view.name}.png"
    browse(
        chromium, tmp_path, colour_scheme(dark=view.dark),
        f"--window-size={view.width},1400", f"--screenshot={picture}", page.as_uri(),
    )  # fmt: skip
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (view.width, 1400)
    assert len(data) > 20_000  # not an empty page


# ---------------------------------------------------------------------------- contrast, by the published formula
def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


THEMES = re.findall(r":root \{(.*?)\}", CSS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark", "print"])
def test_text_stands_out_from_its_ground(theme: str) -> None:
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", theme))
    for ground in ("paper", "wash"):
        for ink in ("ink", "quiet", "good", "bad", "alarm"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for lane in ("control", "arm-1", "arm-2", "arm-3", "alarm"):
        assert contrast(colours["paper"], colours[lane]) >= 4.5, lane
    assert contrast(colours["ink"], colours["rule"]) >= 4.5
