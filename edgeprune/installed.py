"""What installed packages offer by entry point: names, and the packages they come from. To look loads nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edgeprune.errors import UsageError

EXPORTERS = "edgeprune.exporters"
DEVICES = "edgeprune.devices"
METHODS = "edgeprune.methods"
TASKS = "edgeprune.tasks"
OURS = "edgeprune"
# The runtimes whose one-operation files the latency table writes itself; an exporter builds those of any other.
OWN_PROBES = ("litert",)


def offered(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name, in the order of the names. A name that two packages offer has two."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        points.setdefault(point.name, []).append(point)
    return dict(sorted(points.items()))


def package_of(point: EntryPoint) -> str:
    """The distribution that an entry point comes with."""
    return str(point.dist.name) if point.dist else "an unknown package"


def chosen(group: str, name: str, what: str) -> EntryPoint:
    """The one entry point of a name; `what` says in an error what it is, as "format".

    Raises:
        UsageError: there is none (names those that there are, with their packages), or two packages offer it.
    """
    points = offered(group)
    if name not in points:
        there = {one: package_of(found[0]) for one, found in points.items()}
        raise UsageError(f"there is no {what} {name!r}", hint=choice(name, there, what))
    return _only(points[name], what)


def choice(name: str, there: Mapping[str, str], what: str) -> str:
    """A hint for a name that is not there: the nearest one, and all that are (name -> package)."""
    near = difflib.get_close_matches(name, there, n=1)
    listed = ", ".join(f"{one} ({package})" for one, package in sorted(there.items()))
    return (f"did you mean `{near[0]}`? " if near else "") + f"the {what}s there are: {listed or 'none'}"


def load(point: EntryPoint, what: str) -> Any:
    """What an entry point names.

    Raises:
        UsageError: it cannot be imported; names its package.
    """
    try:
        return point.load()
    except (ImportError, AttributeError, TypeError, SyntaxError) as error:
        raise broken(point, what, error) from error


def broken(point: EntryPoint, what: str, error: Exception) -> UsageError:
    """The error of a plugin that does not work."""
    package = package_of(point)
    return UsageError(
        f"the {what} {point.name!r} ({point.value}) cannot be loaded: {error}",
        where=package,
        hint=f"repair or uninstall {package}",
    )


def exporters() -> Iterator[tuple[EntryPoint, Any]]:
    """The exporters' classes, each loaded when it is its turn: ours first, those that do not load left out.

    Raises:
        UsageError: two packages offer one format.
    """
    points = [_only(found, "format") for found in offered(EXPORTERS).values()]
    for point in sorted(points, key=lambda point: package_of(point) != OURS):
        try:
            yield point, load(point, "exporter")
        except UsageError:
            continue  # whoever asks for its format is told


def measures(exporter: Any, runtime: str) -> bool:
    """Whether a model can be pruned for a runtime with this exporter: it writes the runtime's files, and the
    one-operation files of the latency table can be made."""
    return bool(exporter.runtime == runtime and (runtime in OWN_PROBES or hasattr(exporter, "build_probes")))


def probed_precisions(exporter: Any) -> tuple[str, ...]:
    """The precisions that a runtime is probed in with the exporter's one-operation files: fp32 of any, int8 where it
    builds those."""
    return ("fp32", "int8") if hasattr(exporter, "build_int8_probes") else ("fp32",)


def require_runtime(name: str) -> None:
    """Check that models can be pruned for a runtime.

    Raises:
        UsageError: they cannot; names those for which they can, with the packages whose exporters write their files.
    """
    there: dict[str, str] = {}
    for point, exporter in exporters():
        if measures(exporter, name):
            return
        if exporter.runtime is not None and measures(exporter, exporter.runtime):
            there.setdefault(exporter.runtime, package_of(point))
    raise UsageError(f"there is no runtime {name!r} to prune for", hint=choice(name, there, "runtime"))


def _only(points: list[EntryPoint], what: str) -> EntryPoint:
    """The one point of a name. Two packages that name the same object offer one thing."""
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(f"{package_of(point)} ({point.value})" for point in points))
        raise UsageError(f"two packages offer the {what} {points[0].name!r}: {packages}", hint="uninstall one of them")
    return points[0]
