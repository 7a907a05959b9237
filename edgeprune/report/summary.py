"""The report in a terminal: a few lines and two small tables."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edgeprune.report import headline, text
from edgeprune.report.data import ReportData, Standing

ROOM = 45  # that the columns beside a file's name take at least
_STYLE: dict[headline.State, str] = {"good": "bold green", "bad": "bold red", "warn": "bold yellow", "plain": "bold"}


def summary(data: ReportData) -> RenderableType:
    """What `edgeprune run` prints at its end and `edgeprune show run RUN` prints again; for `rich.print` or a Console.

    Texts from the data are shown as they are: rich markup in a model's name is not obeyed.
    """
    result = headline.outcome(data)
    head = Text.assemble((result.word, _STYLE[result.state]), "  ", (data.title, "bold"), "\n", headline.sentence(data))
    parts: list[RenderableType] = [head, Text(result.why, style="dim")]
    if data.stages:
        parts.append(_stages(data))
    if data.files:
        parts.append(_Files(data))
    for one in data.shipping:
        parts.append(Text(one.words, style="bold" if one.file else "yellow"))
        parts += [Text(slower.words, style="yellow") for slower in one.slower]
    held = [
        (line.file, check)
        for line in data.files
        if line.verdict
        for check in line.verdict.checks
        if check.outcome in ("fail", "undecided")
    ]
    for file, check in held:
        said = f"{text.check_figure(check)}, limit {text.check_limit(check)}; {check.why}"
        style = "red" if check.outcome == "fail" else "yellow"
        parts.append(Text.assemble((f"{text.MARK[check.outcome]} {file} {check.name}: ", style), said))
    if data.binding is not None:
        parts.append(Text(f"what binds: {data.binding.words}", style="dim"))
    parts += [Text(f"note: {note}", style="dim") for note in data.notes]
    return Group(*parts)


def _stages(data: ReportData) -> Table:
    table = _table("stage", data.metric.name, "latency", "MACs", "parameters")
    for point in data.stages:
        table.add_row(
            Text(point.stage),
            Text(text.accuracy(point)),
            Text(text.latency(point.latency)),
            Text(text.count(point.macs)),
            Text(text.count(point.parameters)),
        )
    return table


class _Files:
    """The table of the files. Their names stay whole, so that they can be copied, where there is room for that."""

    def __init__(self, data: ReportData) -> None:
        self._data = data

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        longest = max(len(line.file) for line in self._data.files)
        yield _files(self._data, whole_names=longest + ROOM <= options.max_width)


def _files(data: ReportData, *, whole_names: bool) -> Table:
    table = _table("file", "standing", "size", "latency", "of the original")
    table.columns[0].no_wrap = whole_names
    states: dict[Standing, headline.State] = {
        "proven": "good",
        "reference": "plain",
        "failed": "bad",
        "uncertain": "warn",
        "undecided": "warn",
        "unproven": "warn",
    }
    for line in data.files:
        table.add_row(
            Text(line.file, overflow="fold"),
            Text(f"{text.MARK[line.standing]} {text.STANDING[line.standing]}", style=_STYLE[states[line.standing]]),
            Text(text.size(line.manifest.size_bytes if line.manifest else None)),
            Text(text.latency(line.verdict.latency if line.verdict else None)),
            Text(text.ratio(line.verdict.against_original if line.verdict else None)),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left")
    return table
