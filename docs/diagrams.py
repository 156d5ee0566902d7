"""Draw docs/images/*.svg from the *.mmd beside them: ``python docs/diagrams.py``.

It needs npm, for Mermaid, and Playwright with Chromium. Each SVG says which text it was made from,
so that a test sees when it is not made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
MERMAID = "mermaid@11.17.2"
# Narrow, so that it can be read on a phone; letters as SVG, so that it can be shown as a picture.
SETTINGS = """{
  startOnLoad: false, theme: "neutral",
  themeVariables: {fontSize: "13px",
    noteBkgColor: "#fff8db", noteTextColor: "#1f2937", noteBorderColor: "#d9c46c"},
  htmlLabels: false, deterministicIds: true,
  deterministicIDSeed: "rm", fontFamily: "Helvetica, Arial, sans-serif", fontSize: 13,
  flowchart: {htmlLabels: false, nodeSpacing: 22, rankSpacing: 34, padding: 8, wrappingWidth: 130},
  state: {htmlLabels: false, nodeSpacing: 14, rankSpacing: 40, padding: 6},
  sequence: {actorMargin: 22, width: 96, height: 40, boxMargin: 4, messageMargin: 30,
    noteMargin: 8, diagramMarginX: 6, diagramMarginY: 6, mirrorActors: false},
}"""


def mark_of(source: Path) -> str:
    """Return what the SVG of a source says of it."""
    made_of = f"{MERMAID} {SETTINGS} {source.read_text(encoding='utf-8')}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def mermaid(folder: Path) -> Path:
    """Return Mermaid's one file, from npm's registry."""
    command = ["npm", "pack", "--silent", MERMAID]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - it is ours
    (package,) = folder.glob("mermaid-*.tgz")
    with tarfile.open(package) as archive:
        archive.extract("package/dist/mermaid.min.js", folder, filter="data")
    return folder / "package/dist/mermaid.min.js"


async def draw(sources: list[Path], script: Path) -> None:
    """Write the SVG of each source."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for source in sources:
            page = await chromium.new_page()
            await page.add_script_tag(path=script)
            svg: str = await page.evaluate(
                f"text => {{ mermaid.initialize({SETTINGS}); "
                "return mermaid.render('drawing', text).then(made => made.svg) }",
                source.read_text(encoding="utf-8"),
            )
            await page.close()
            source.with_suffix(".svg").write_text(as_picture(svg, source), encoding="utf-8")
            print(f"wrote {source.stem}.svg")
        await chromium.close()


def as_picture(svg: str, source: Path) -> str:
    """Give it a size and a white ground, and say what it was made from."""
    width, height = re.findall(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)[0]
    svg = re.sub(r' width="100%"| style="max-width[^"]*"', "", svg, count=2)
    root = f'<svg width="{width}" height="{height}" style="background: #fff"'
    made = f"><!-- {source.name}, {mark_of(source)} -->"
    return svg.replace("<svg", root, 1).replace(">", made, 1).replace("<br>", "<br/>") + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(draw(sorted(IMAGES.glob("*.mmd")), mermaid(Path(folder))))


if __name__ == "__main__":
    main()
