"""The page: one self-contained HTML file without scripts, from one run or several."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgeprune.errors import UsageError
from edgeprune.report import headline, text
from edgeprune.report.data import ReportData, StagePoint
from edgeprune.report.figures.attempts import attempts
from edgeprune.report.figures.layers import layers
from edgeprune.report.figures.samples import samples
from edgeprune.report.figures.tradeoff import tradeoff
from edgeprune.report.figures.tuning import tuning


def render(reports: Sequence[ReportData]) -> str:
    """The page of one run, or of several with a comparison on top, as HTML text (UTF-8).

    The page needs nothing from outside and forbids itself scripts and requests (Content-Security-Policy); every
    text from the data is escaped. The same data makes the same bytes.

    Raises:
        UsageError: `reports` is empty.
    """
    if not reports:
        raise UsageError("there is no run to report", hint="name at least one run folder")
    environment = Environment(
        loader=PackageLoader("edgeprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.globals |= {"text": text, "mark": text.MARK, "headline": headline}
    page = environment.get_template("page.html.j2").render(
        reports=reports,
        runs=[(data, figures(data)) for data in reports],
        comparison=tradeoff(_compared(reports), trail=False) if len(reports) > 1 else Markup(""),
    )
    # A lone surrogate (it can come out of JSON) has no UTF-8 form: the page shows it as a replacement character.
    return page.encode("utf-8", "replace").decode("utf-8")


def _breakable(name: str) -> Markup:
    """A name that may go to the next line where its parts end, and nowhere else."""
    return Markup("<wbr>").join(re.split(r"(?<=[-/_:])|(?=\.(?!\d))", name))  # each is escaped


def figures(data: ReportData) -> dict[str, Markup]:
    """The figures of one run by name; an empty one where the run has no such data."""
    original = data.stage("original")
    return {
        "tradeoff": tradeoff(data.stages),
        "samples": samples(data.against_original),
        "layers": layers(data.layers),
        "attempts": attempts(data.attempts, data.tolerance),
        "tuning": tuning(data.tuning, original.accuracy if original else None, data.kept_epoch, data.metric),
    }


def _compared(reports: Sequence[ReportData]) -> tuple[StagePoint, ...]:
    """Original and final of each run as points of one figure; a point that runs share is drawn once."""
    found: list[tuple[StagePoint, list[str]]] = []
    for number, data in enumerate(reports, start=1):
        for point in (data.stage("original"), data.final or data.stage("pruned")):
            if point is None:
                continue
            numbers = next((numbers for known, numbers in found if known == point), None)
            if numbers is None:
                found.append((point, numbers := []))
            numbers.append(str(number))
    return tuple(point.model_copy(update={"stage": f"{', '.join(numbers)}: {point.stage}"}) for point, numbers in found)
