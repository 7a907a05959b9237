"""The Typer application and what turns an error into its exit code."""

from __future__ import annotations

import atexit
import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from edgeprune.cli import (
    bench,
    compare,
    devices,
    doctor,
    explain,
    front,
    predict,
    probe,
    profile,
    prune,
    report,
    run,
    sensitivity,
    show,
    stage,
    table,
)
from edgeprune.cli.console import answers_apart, say_answer
from edgeprune.cli.stopping import signals_as_interrupts, stopped_code
from edgeprune.cli.streams import READER_GONE, is_reader_gone, make_usable
from edgeprune.errors import EdgePruneError, ModelError, UsageError, is_of_a_path
from edgeprune.memory import keep_freed_memory
from edgeprune.scratch import FULL, place_of, sweep_scratch


class _Commands(TyperGroup):
    """The commands, which say something when a signal ends them (Typer itself exits in silence), and do not end as
    after a failed gate when nobody reads what they say."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:  # of --help
            raise _ended_by(error) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            typer.secho("stopped; finished stages are kept, go on with --resume", err=True)
            raise typer.Exit(stopped_code(stopped)) from stopped
        except SystemExit as ended:  # no command of ours does so: they raise typer.Exit
            raise ModelError(
                f"code that is not EdgePrune's ended the program: sys.exit({ended.code!r})",
                hint="let the model's factory and forward raise an error instead",
            ) from ended
        except OSError as error:  # Typer would take any broken pipe for the reader's, and exit with 1
            raise _ended_by(error) from error


def _ended_by(error: OSError) -> Exception:
    if error.errno != errno.EPIPE:
        return error
    if is_reader_gone(error):
        return typer.Exit(READER_GONE)
    return EdgePruneError("a program that was started ended before it had read all", hint="try again; --resume goes on")


app = typer.Typer(
    cls=_Commands,
    help="Prune vision models to a latency measured on the device, and prove the exported file there.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs more time than all our own imports
)
app.command("run")(run.run)
app.command("front")(front.front)
app.command("prune")(prune.prune)
stage.add_commands(app)
app.command("bench")(bench.bench)
app.command("compare")(compare.compare)
app.command("probe")(probe.probe)
app.command("predict")(predict.predict)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("profile")(profile.profile)
app.command("explain")(explain.explain)
app.add_typer(table.table, name="table")
app.add_typer(devices.devices, name="devices")
app.command("doctor")(doctor.doctor)
app.add_typer(show.show, name="show")
app.command("report")(report.report)


def main() -> None:
    """Entry point: exit codes 0 pass, 1 a gate failed, 2 usage, 3 internal, 4 no device, or none to tell."""
    # Threads that spin while they wait make training several times slower as soon as anything else runs (seen: 3.6 s
    # a step instead of 0.6 s with one other busy process on two cores; 0.22 s and 0.24 s on an idle machine).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    make_usable()
    try:
        with signals_as_interrupts(), answers_apart("--json" in sys.argv):
            sweep_scratch()
            _main()
    except SystemExit as ended:
        _leave_threads(ended)
        raise


def _leave_threads(ended: SystemExit) -> None:
    """End now where a thread that the user's factory started would keep Python waiting for ever."""
    factory = sys.modules.get("edgeprune.models.factory")  # not loaded: no factory was called
    left = factory.threads_left() if factory is not None else []
    if not left or not isinstance(ended.code, int | None):
        return
    typer.secho(f"threads that the model's factory started still run, and are left: {', '.join(left)}", err=True)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended.code or 0)


def _main() -> None:
    try:
        app()
    except KeyboardInterrupt as stopped:  # before a command began
        sys.exit(stopped_code(stopped))
    except EdgePruneError as error:
        _say(error)
        sys.exit(error.exit_code)
    except OSError as error:
        kind = UsageError if is_of_a_path(error) else EdgePruneError
        place = error.filename if error.errno not in FULL else place_of(error, Path.cwd())
        refused = kind(error.strerror or str(error), where=place, hint="check the path, its rights and the disk")
        _say(refused)
        sys.exit(refused.exit_code)
    except Exception as error:
        broken = EdgePruneError(
            f"{type(error).__name__}: {error}",
            hint="the traceback above says where; finished stages are kept, so --resume goes on after them",
        )
        traceback.print_exc()
        _say(broken)
        raise SystemExit(broken.exit_code) from error  # not Python's 1, which means that a gate failed


def _say(error: EdgePruneError) -> None:
    """Tell an error on stderr, and with --json on stdout. Where one of them cannot be written, its exit code stays."""
    try:
        typer.secho(f"error: {error}", err=True, fg="red")
    except OSError as broken:
        is_reader_gone(broken)
    if "--json" in sys.argv:
        body = {"what": error.what, "where": error.where, "hint": error.hint, "exit_code": error.exit_code}
        try:
            say_answer(json.dumps({"error": body}))
        except EdgePruneError:
            return
        except OSError as broken:
            is_reader_gone(broken)
