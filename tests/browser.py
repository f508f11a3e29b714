"""A real browser for the tests of what people see: headless Chromium, and axe-core's rules of accessibility."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
SERIOUS = {"serious", "critical"}


def find_chromium() -> str:
    """Return the browser's path; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium here to look at pages with")


def browse(chromium: str, folder: Path, *arguments: str) -> str:
    """Run the browser once with a fresh profile; returns what it printed."""
    profile = folder / "profile"
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def colour_scheme(*, dark: bool) -> str:
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def axe_script() -> str:
    """Return axe-core, as the package that ships it has it; skips where that is not installed."""
    try:
        files = metadata.files("axe-playwright-python") or []
    except metadata.PackageNotFoundError:
        pytest.skip("axe-core is not installed (make setup installs it)")
    found = next(file for file in files if file.name == "axe.min.js")
    return Path(str(found.locate())).read_text(encoding="utf-8")


def accessibility_faults(chromium: str, folder: Path, document: str, *, dark: bool = False) -> list[str]:
    """Run axe-core over an HTML document; returns each serious or critical fault as 'rule: element'."""
    runner = """<script>
      addEventListener("load", async () => {
        const found = await axe.run(document, {resultTypes: ["violations"]});
        const faults = found.violations.map((rule) => [rule.id, rule.impact, rule.nodes.map((node) => node.html)]);
        const out = document.createElement("pre");
        out.id = "axe-found";
        out.textContent = JSON.stringify({faults, passes: found.passes.length});
        document.body.append(out);
      });
    </script>"""
    # The page lets no script run: for the test alone that is lifted.
    opened = re.sub(r"<meta http-equiv[^>]*>", "", document)
    opened = opened.replace("</body>", f"<script>{axe_script()}</script>{runner}</body>")
    path = folder / "axe.html"
    path.write_text(opened, encoding="utf-8")
    dumped = browse(
        chromium, folder, colour_scheme(dark=dark), "--window-size=1000,1400", "--virtual-time-budget=20000",
        "--dump-dom", path.as_uri(),
    )  # fmt: skip
    answer = re.search(r'<pre id="axe-found">(.*?)</pre>', dumped, re.DOTALL)
    assert answer is not None, "axe-core did not answer"
    seen: dict[str, Any] = json.loads(html.unescape(answer.group(1)))
    assert seen["passes"] > 5, "axe-core looked at nothing"
    return [f"{rule}: {where[:160]}" for rule, impact, nodes in seen["faults"] if impact in SERIOUS for where in nodes]
