"""Layouts: who takes whom along, however deep they are nested, and those that go round in a circle."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.graph.labels import AtomTable, Components


def owners(components: Components, atoms: np.ndarray) -> list[set[int]]:
    return [set(components.owners_of(int(component))) for component in components.of[atoms]]


@given(st.lists(st.tuples(st.integers(2, 4), st.integers(2, 4)), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_channel_is_owned_by_the_axes_at_the_top_of_its_layouts(shapes: list[tuple[int, int]]) -> None:
    """Channels laid out over (rows, columns), the columns again over rows and columns, and so on."""
    table = AtomTable()
    count = int(np.prod([rows for rows, _ in shapes])) * shapes[-1][1]
    channels = label = table.fresh(count)
    axes = []
    for rows, _ in shapes:
        over, label = table.split(label, (rows, len(label) // rows), "here")
        axes.append(over)
    components = table.components()
    places = np.unravel_index(np.arange(count), [rows for rows, _ in shapes] + [shapes[-1][1]])
    expected = [
        {int(components.of[axis[place[channel]]]) for axis, place in zip([*axes, label], places, strict=True)}
        for channel in range(count)
    ]
    assert owners(components, channels) == expected
    assert components.reason == {}
    position, owner = components.owners_in(components.of[channels])
    for channel in range(count):
        assert set(owner[position == channel].tolist()) == expected[channel]


def test_a_frozen_channel_freezes_the_axes_that_would_take_it_along() -> None:
    table = AtomTable()
    channels = table.fresh(6)
    rows, columns = table.split(channels, (2, 3), "here")
    table.freeze(channels[4:5], "kept")  # row 1, column 1
    components = table.components()
    frozen = {atom for atom in (*rows, *columns) if int(components.of[atom]) in components.reason}
    assert frozen == {rows[1], columns[1]}


def test_what_is_laid_out_over_itself_is_frozen_with_all_above_it() -> None:
    table = AtomTable()
    channels = table.fresh(4)
    rows, columns = table.split(channels, (2, 2), "here")
    table.couple(rows, channels[:2])
    below = table.fresh(4)
    over, inner = table.split(below, (2, 2), "there")
    table.couple(inner, channels[2:])  # laid out over what is laid out over the circle
    alone = table.fresh(1)
    components = table.components()
    reasons = [components.reason.get(int(c)) for c in components.of[np.concatenate([channels, columns, below, over])]]
    assert reasons == ["laid out over itself"] * len(reasons)
    assert int(components.of[alone[0]]) not in components.reason


def test_layouts_of_which_one_never_loses_an_index_are_frozen_not_pondered_for_ever() -> None:
    table = AtomTable()
    a, c, a2, b2, c2 = (table.fresh(size) for size in (2, 2, 2, 3, 2))
    left = table.merge((a, None, c), (2, 3, 2), "here")
    right = table.merge((a2, b2, c2), (2, 3, 2), "there")
    table.couple(left, right)
    components = table.components()
    for atoms in (left, right, a, c, a2, b2, c2):
        assert all(components.reason[int(c)] == "laid out in two ways: here, there" for c in components.of[atoms])
