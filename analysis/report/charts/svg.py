"""From a matplotlib figure to SVG that can stand in a page: themed, labelled, without ids that clash."""

from __future__ import annotations

import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.report.escaping import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT_SIZE = 12.0

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#0a0b[0-9a-f]{2}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fleetexp",
    "text.parse_math": False,  # a dollar in a host name is a dollar
    "font.family": "DejaVu Sans",  # ships with matplotlib; wider than what pages use, so nothing is clipped
    "font.size": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "path.simplify": False,
}
# matplotlib's settings and Python's warning filters are global: one drawing at a time.
_DRAWING = threading.Lock()


class Colour(StrEnum):
    """Stand-ins that matplotlib takes for colours; in the page they become the variables of its theme."""

    INK = "#0a0b00"
    QUIET = "#0a0b01"
    RULE = "#0a0b02"
    CONTROL = "#0a0b03"
    ARM_1 = "#0a0b04"
    ARM_2 = "#0a0b05"
    ARM_3 = "#0a0b06"
    ALARM = "#0a0b07"
    PAPER = "#0a0b08"


_ARMS = (Colour.ARM_1, Colour.ARM_2, Colour.ARM_3)
_VARIABLES = {colour.value: f"var(--{colour.name.lower().replace('_', '-')})" for colour in Colour}


def arm_colours(arms: tuple[str, ...], control: str) -> dict[str, Colour]:
    """Give the control its own colour and the others theirs, in order, going round after the third."""
    treatments = [arm for arm in arms if arm != control]
    return {control: Colour.CONTROL} | {arm: _ARMS[place % len(_ARMS)] for place, arm in enumerate(treatments)}


def label(text: str, most: int = 56) -> str:
    """Make foreign text fit for a chart: one visible line of at most `most` characters."""
    shown = one_line(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def draw(
    build: Callable[[Figure], None], *, width: float, height: float, key: str, title: str, description: str
) -> Markup:
    """Let `build` fill a figure of `width` x `height` CSS pixels and return it as one `<svg>` element.

    `key` must be unique in the page; `title` and `description` are what a screen reader says.
    """
    import matplotlib  # noqa: PLC0415 - heavy: loaded when something is drawn
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    raw = io.BytesIO()
    with _DRAWING, warnings.catch_warnings(), matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
        # A letter that the measuring font lacks is still written as text; the reader's fonts have it.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        build(figure)
        FigureCanvasSVG(figure).print_svg(raw, metadata={"Date": None})  # type: ignore[no-untyped-call]
    root = ET.fromstring(raw.getvalue())  # noqa: S314 - matplotlib wrote it
    return _for_page(root, width=width, height=height, key=key, title=title, description=description)


def _for_page(root: ET.Element, *, width: float, height: float, key: str, title: str, description: str) -> Markup:
    """Drop what only a file needs, rename ids, turn stand-in colours into variables, add title and description."""
    referenced = {
        name
        for node in root.iter()
        for value in node.attrib.values()
        for name in [*_REFERENCE.findall(value), *([value[1:]] if value.startswith("#") else [])]
    }
    _clean(root, key, referenced)
    root.attrib.clear()
    root.attrib.update(
        {
            "class": "chart",
            "role": "img",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "viewBox": f"0 0 {width:g} {height:g}",
            "aria-labelledby": f"{key}-title {key}-desc",
        }
    )
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        node = ET.Element(tag, {"id": f"{key}-{tag}"})
        node.text = one_line(text)
        root.insert(place, node)
    ET.indent(root, space="")
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=False))  # noqa: S704 - built as a tree


def _clean(node: ET.Element, key: str, referenced: set[str]) -> None:
    node.tag = node.tag.removeprefix(_SVG)
    for name, value in list(node.attrib.items()):
        if name == "id":
            del node.attrib[name]
            if value in referenced:
                node.attrib["id"] = f"{key}-{value}"
        elif name == _HREF:
            del node.attrib[name]
            node.attrib["href"] = f"#{key}-{value[1:]}"
        else:
            themed = _COLOUR.sub(lambda found: _VARIABLES[found.group()], value)
            node.attrib[name] = _REFERENCE.sub(lambda found: f"url(#{key}-{found.group(1)})", themed)
    for child in list(node):
        if child.tag in {f"{_SVG}style", f"{_SVG}metadata"} or not isinstance(child.tag, str):
            node.remove(child)
        else:
            _clean(child, key, referenced)
