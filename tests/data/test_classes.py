from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data.classes import natural_order, text_order
from edgeprune.models.timm_import import import_timm


def test_numbers_in_names_count_as_numbers() -> None:
    names = [str(number) for number in range(1, 13)]
    assert natural_order(reversed(names)) == tuple(names)
    assert text_order(names) == ("1", "10", "11", "12", *"23456789")
    assert natural_order(["b2", "B10", "a", "b1"]) == ("a", "b1", "b2", "B10")
    assert natural_order(["9" * 5000, "8"]) == ("8", "9" * 5000)


@given(st.lists(st.text("aB19_- ", min_size=1), unique=True))
@settings(deadline=None)
def test_natural_order_is_timms(names: list[str]) -> None:
    timm = import_timm()
    natural_key = timm.utils.misc.natural_key
    assert [natural_key(name) for name in natural_order(names)] == sorted(natural_key(name) for name in names)
