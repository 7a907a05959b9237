"""What commands share: progress on stderr, results on stdout (JSON or for people), and common options."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from edgeprune.models.spec import Model
    from edgeprune.recipe import Precision

_ANSWERS: ContextVar[TextIO | None] = ContextVar("answers", default=None)  # None: stdout as it is


def complete_formats(incomplete: str) -> list[str]:
    """The formats that installed exporters write."""
    from edgeprune.installed import EXPORTERS, offered

    return [name for name in offered(EXPORTERS) if name.startswith(incomplete)]


def complete_devices(incomplete: str) -> list[str]:
    """The ids that are known without asking a device or starting a server."""
    from edgeprune.devices.discovery import ids_at_hand
    from edgeprune.errors import EdgePruneError

    try:
        return [id for id in ids_at_hand() if id.startswith(incomplete)]
    except EdgePruneError:  # the user's list of devices is broken: its commands tell of that
        return []


def complete_runs(incomplete: str) -> list[str]:
    """Run folders, and the folders on the way to them."""
    from pathlib import Path

    above = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    try:
        folders = sorted(path for path in above.iterdir() if path.is_dir() and str(path).startswith(incomplete))
    except OSError:
        return []
    runs = [str(path) for path in folders if (path / "run.json").is_file()]
    return runs or [f"{path}/" for path in folders if not path.name.startswith(".")]


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Device id, see `edgeprune devices`.", autocompletion=complete_devices),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Use the code and device that the run folder or file names, though you have named them nowhere.",
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")]
RuntimeOption = Annotated[str, typer.Option(help="The runtime whose latency is meant: litert, executorch.")]
InputSizeOption = Annotated[
    str | None,
    typer.Option(
        help='Channels,height,width, e.g. 3,224,224; several inputs by name, without the batch: "left=3,32,32 place=5".'
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="What answers mean: classification, multi-label, segmentation, regression, embedding, or file.py:Task."
    ),
]


PrecisionOption = Annotated[str, typer.Option(help="Of the files whose latency is meant: fp32 or int8.")]


def read_precision(text: str | None) -> Precision | None:
    """A precision as it is given to a command.

    Raises:
        UsageError: there is none of that name.
    """
    from edgeprune.errors import UsageError
    from edgeprune.recipe import Precision

    if text is None:
        return None
    known: tuple[Precision, ...] = get_args(Precision)
    if text not in known:
        raise UsageError(f"there is no precision {text!r}", where="--precision", hint=f"take one of {', '.join(known)}")
    return known[known.index(text)]


def load_model(source: str, input_size: str | None) -> Model:
    """The model of a command's arguments.

    Raises:
        UsageError: --input-size is not written like 3,224,224.
    """
    from edgeprune.api import load

    return load(source, **{name: value for name, value in read_input_size(input_size).items() if value is not None})


def read_input_size(text: str | None) -> dict[str, Any]:
    """What --input-size says, as [model] `input_size` and `inputs`; None is what it does not say.

    Raises:
        UsageError: it is written like neither 3,224,224 nor "left=3,32,32 place=5".
    """
    from edgeprune.errors import UsageError
    from edgeprune.recipe import input_size_fault, inputs_fault

    size: tuple[int, ...] | None = None
    inputs: dict[str, tuple[int, ...]] | None = None
    try:
        if text is not None and "=" in text:
            named = [part.partition("=") for part in text.split()]
            inputs = {name: _sides(sides) for name, _, sides in named}
            fault = "one name twice" if len(inputs) < len(named) else inputs_fault(inputs)
        else:
            size = _sides(text) if text else None
            fault = input_size_fault(size) if size is not None else ""
        if fault:
            raise ValueError(fault)
    except ValueError as error:
        raise UsageError(
            f"cannot read --input-size {text}: {error}",
            hint="write it like 3,224,224 (channels, height and width); several inputs like "
            '"left=3,32,32 right=3,32,32"',
        ) from error
    return {"input_size": size, "inputs": inputs}


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def refuse_given(options: Mapping[str, object], why: str, *, where: str) -> None:
    """Refuse options that mean nothing here; those that are None were not given.

    Raises:
        UsageError: one was given; `why` says what it has no meaning for.
    """
    from edgeprune.errors import UsageError

    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {why}", where=where, hint="leave that out")


class RichProgress:
    """Draws stages on stderr: one line for what is done, a bar with the time left for what is being done."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = open_console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._stage = ""
        self._task = self._bars.add_task("", total=None)

    @contextmanager
    def shown(self) -> Iterator[RichProgress]:
        with self._bars:
            yield self

    def stage(self, name: str) -> None:
        self._stage = name
        self._console.print(f"[bold]{name}[/bold]")
        self._bars.reset(self._task, description=name, total=None)

    def say(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    def update(self, text: str, done: float, total: float) -> None:
        if done == 0:
            self._bars.reset(self._task)
        shown = f"{self._stage}: {text}" if self._stage else text
        self._bars.update(self._task, description=shown, completed=done, total=total)


@contextmanager
def answers_apart(wanted: bool) -> Iterator[None]:
    """Keep stdout for `say_answer` alone: what others print there meanwhile (a factory, a library, a process that they
    start) goes to stderr."""
    if not wanted:
        yield
        return
    answers, kept = sys.stdout, None
    with suppress(OSError, ValueError):  # no real stdout, as in a test
        if sys.stdout.fileno() == 1:
            sys.stdout.flush()
            kept = os.dup(1)
            answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(2, 1)
    token = _ANSWERS.set(answers)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _ANSWERS.reset(token)
        with suppress(OSError):
            answers.flush()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def say_answer(text: str) -> None:
    """Write a command's answer to stdout."""
    with _writing():
        typer.echo(text, file=_ANSWERS.get())


def show_result(result: dict[str, Any] | list[Any], shown: RenderableType, *, as_json: bool) -> None:
    """Print a result: JSON on stdout for machines, or what people read."""
    if as_json:
        say_answer(json.dumps(result, indent=1))
        return
    if isinstance(shown, str):
        say_answer(shown)  # a path in it is neither wrapped nor taken for markup
        return
    with _writing():
        open_console(markup=False).print(shown)  # edgeprune[coreml] is a package, not markup


def open_console(**options: Any) -> Console:
    """A console of rich's that raises a broken pipe as what it is: rich's own would exit with 1, as a failed gate."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Piped(**options)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        from edgeprune.errors import EdgePruneError

        raise EdgePruneError(
            f"the answer cannot be written: {error.strerror}", where="stdout", hint="check where it goes, and the disk"
        ) from error


def milliseconds(median_s: float, low_s: float, high_s: float, quality: str) -> str:
    """A latency as it is always shown: with its interval and quality."""
    return f"{median_s * 1e3:.3f} ms ({low_s * 1e3:.3f}-{high_s * 1e3:.3f}), {quality}"
