"""Writes report.html: one page that tells a run from its result to its recipe, and opens offline."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from stepwell.errors import UserError
from stepwell.report import sections
from stepwell.report.figure import Figure
from stepwell.report.run_folder import RunFolder, read_run
from stepwell.training import files


def write_report(run: Path) -> Path:
    """Reads the run folder `run` and writes its report.html, replacing an older one in a single step.

    The page needs no network and no other file. What is missing in the folder is said on the page.
    Raises UserError if `run` is not a run folder or the page cannot be written.
    """
    run = Path(run)
    return write_page(run / "report.html", page(read_run(run)))


def write_page(target: Path, text: str) -> Path:
    """Writes a page in a single step; UserError where it cannot be written."""
    try:
        files.write_text(target, text)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}): free the place or its permissions."
        ) from None
    return target


def page(run: RunFolder) -> str:
    """Returns the HTML text for a RunFolder."""
    return document(run.name, sections.all_sections(run))


def document(title: str, found: Iterable[sections.Section]) -> str:
    """Returns the HTML text of a page with these sections; those without a body are left out."""
    parts = [part for part in found if part.body]
    figures = {figure.id: _json_of(figure) for part in parts for figure in part.figures}
    theme_script, plotly, script = _file("theme.js"), _plotly(), _file("report.js")
    return Template(_file("page.html")).substitute(
        title=html.escape(f"{title} · Stepwell"),
        policy=_policy([theme_script, plotly, script]),
        style=_file("report.css"),
        theme_script=theme_script,
        links="\n".join(f'<a href="#{part.id}">{html.escape(part.link)}</a>' for part in parts if part.link),
        body="\n".join(part.html() for part in parts),
        figures=embedded_json(figures),
        plotly=plotly,
        script=script,
    )


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a <script> element, even if its strings say `</script>` or `<!--`.

    Infinity and NaN are refused, since browsers cannot parse them.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json_of(figure: Figure) -> dict[str, Any]:
    return {
        "data": figure.data,
        "layout": {**figure.layout, "height": figure.height},
        "log": bool(figure.log),
        "logStep": figure.log_step,
    }


def _policy(scripts: list[str]) -> str:
    """Content-Security-Policy: our three scripts and nothing else may run, and nothing may be fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # The library's text is ours to trust, but "</script" inside one of its strings would end the element.
    return get_plotlyjs().replace("</script", "<\\/script")


def _file(name: str) -> str:
    return resources.files("stepwell.report").joinpath(name).read_text(encoding="utf-8")
