"""Splits from hashes: stratified ones, few shots, and the published draws."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.data.splits import few_shot, patient_strata, scikit_split, stratified_split

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
GROUPS = st.dictionaries(st.text(max_size=6), st.integers(0, 3), max_size=80)


@pytest.mark.slow
@given(GROUPS, st.randoms(use_true_random=False))
def test_each_stratum_has_its_fraction_in_any_order(groups: dict[str, int], random) -> None:
    splits = stratified_split(list(groups), list(groups.values()), DEFAULT_FRACTIONS, "salt")
    assert splits.keys() == groups.keys()
    for stratum, size in Counter(groups.values()).items():
        for name, share in DEFAULT_FRACTIONS.items():
            count = sum(groups[p] == stratum and splits[p] == name for p in groups)
            assert abs(count - share * size) <= 1
    shuffled = list(groups)
    random.shuffle(shuffled)
    again = stratified_split(shuffled, [groups[p] for p in shuffled], DEFAULT_FRACTIONS, "salt")
    assert again == splits


def test_a_salt_draws_anew_and_an_addition_moves_few() -> None:
    patients = [f"p{k}" for k in range(1000)]
    strata = [k % 7 == 0 for k in range(1000)]
    first = stratified_split(patients, strata, DEFAULT_FRACTIONS, "a/1")
    other = stratified_split(patients, strata, DEFAULT_FRACTIONS, "a/2")
    assert sum(first[p] != other[p] for p in patients) > 300
    more = stratified_split([*patients, "new"], [*strata, True], DEFAULT_FRACTIONS, "a/1")
    assert sum(first[p] != more[p] for p in patients) <= 2  # one at each of the two cuts


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.lists(
    st.sampled_from([0, 1, None]), min_size=3, max_size=3))))  # fmt: skip
def test_a_stratum_is_the_rarest_class_of_a_patient(
    images: list[tuple[str, list[int | None]]],
) -> None:
    strata = patient_strata([p for p, _ in images], [row for _, row in images])
    assert list(strata) == list(dict.fromkeys(p for p, _ in images))
    has = {p: {k for q, row in images for k in range(3) if q == p and row[k] == 1} for p in strata}
    for patient, stratum in strata.items():
        if not has[patient]:
            assert stratum == -1
            continue
        assert stratum in has[patient]
        sizes = {k: sum(k in classes for classes in has.values()) for k in range(3)}
        assert sizes[stratum] == min(sizes[k] for k in has[patient])


@given(
    st.dictionaries(
        st.text(max_size=4), st.lists(st.integers(0, 1), min_size=4, max_size=4), max_size=30
    ),
    st.integers(1, 5),
)
def test_few_shots_of_every_class(images: dict[str, list[int]], shots: int) -> None:
    chosen = few_shot(list(images), list(images.values()), shots, "salt")
    assert chosen == few_shot(list(images)[::-1], list(images.values())[::-1], shots, "salt")
    for k in range(4):
        there = sum(row[k] for row in images.values())
        assert sum(images[name][k] for name in chosen) >= min(shots, there)
    assert all(any(images[name]) for name in chosen)
    assert len(chosen) <= 4 * shots


@pytest.mark.parametrize(
    ("count", "held", "sizes"),
    [(26_684, 0.3, (18_678, 4_003, 4_003)), (26_684, 10_674, (16_010, 5_337, 5_337))],
)
def test_published_draws_have_their_sizes(count: int, held: float, sizes: tuple[int, ...]) -> None:
    splits = Counter(scikit_split(range(count), held).values())
    assert tuple(splits[name] for name in ("train", "val", "test")) == sizes
