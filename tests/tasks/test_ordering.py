"""Seeded orders that are never listed against what an order is."""

import pytest

from ldlm_hf.tasks.ordering import shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16, 100, 1025])
def test_every_number_has_one_place(size):
    assert sorted(shuffled(place, size, "a") for place in range(size)) == list(range(size))


def test_orders_of_other_keys_are_others_and_never_change():
    orders = {key: [shuffled(place, 100, key) for place in range(100)] for key in ("a", "b")}
    fixed_points = sum(i == number for i, number in enumerate(orders["a"]))
    agreements = sum(one == other for one, other in zip(*orders.values(), strict=True))
    assert fixed_points < 6  # one is to be expected
    assert agreements < 6
    assert orders["a"][:5] == [9, 43, 6, 21, 31]


def test_each_number_comes_as_often_at_each_place():
    counts = [[0] * 6 for _ in range(6)]
    for key in range(3000):
        for place in range(6):
            counts[place][shuffled(place, 6, str(key))] += 1
    assert all(400 < count < 600 for row in counts for count in row)  # 500, give or take five standard deviations


@pytest.mark.parametrize("place", [-1, 5])
def test_places_outside_are_refused(place):
    with pytest.raises(ValueError, match=f"`place` has to be from 0 to 4, but is {place}"):
        shuffled(place, 5, "a")
