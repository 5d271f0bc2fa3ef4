"""Treatment of statements on which two distillers differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecamp.api.plugin_ref import PluginRef
from ecamp.distill.consensus import Consensus
from ecamp.distill.run import distiller_identity
from ecamp.distill.sources import as_report
from ecamp.errors import MissingError
from ecamp.testing.contract import check_plugin

# toy against toy without hedges: they differ on pneumonia's polarity.
TEXT = "There may be pneumonia. No nodule."


def _make(policy: str = "agree", first: str = "toy", second: str = "toy?hedge=false") -> Consensus:
    return Consensus(Consensus.Config(first=first, second=second, policy=policy))


@pytest.mark.parametrize(
    ("policy", "text", "dropped"),
    [
        ("agree", "There is no nodule.", {"polarity differs": 1}),
        ("first", "There may be pneumonia. There is no nodule.", {}),
        ("union", "There may be pneumonia. There is no nodule.", {}),
    ],
)
def test_polarities_that_differ(site, policy: str, text: str, dropped: dict) -> None:
    distiller = _make(policy)
    (told,) = distiller.distill([as_report("1", TEXT)])
    assert (told.text, told.dropped) == (text, dropped)
    assert distiller.counts() == {
        "agree": 1, "polarity differs": 1, "first: asked": 1, "second: asked": 1,
    }  # fmt: skip


@pytest.fixture
def answers(site, tmp_path):
    """Write published answers for report 1 alone, with an entity that the toy does not know."""
    path = tmp_path / "answers.json"
    path.write_text('{"1": "There is no nodule. There is edema."}')
    return f"published?path={path}"


@pytest.mark.parametrize(
    ("policy", "text", "dropped"),
    [
        ("agree", "There is no nodule.", {"only first": 1, "only second": 1}),
        ("first", "There may be pneumonia. There is no nodule.", {"only second": 1}),
        ("union", "There is edema. There may be pneumonia. There is no nodule.", {}),
    ],
)
def test_entities_that_only_one_names(answers, policy: str, text: str, dropped: dict) -> None:
    (told,) = _make(policy, second=answers).distill([as_report("1", TEXT)])
    assert (told.text, told.dropped) == (text, dropped)


@pytest.mark.parametrize(
    ("policy", "swap", "error", "text"),
    [
        ("agree", False, "no published answer", ""),
        ("first", False, "", "There is no nodule."),
        ("first", True, "no published answer", ""),
        ("union", True, "", "There is no nodule."),
    ],
)
def test_a_report_that_one_cannot_answer(answers, policy, swap, error, text) -> None:
    first, second = (answers, "toy") if swap else ("toy", answers)
    (told,) = _make(policy, first, second).distill([as_report("2", "No nodule.")])
    assert (told.error, told.text) == (error, text)


def test_the_consensus_streams_reports(site) -> None:
    read = 0

    def reports() -> Iterator:
        nonlocal read
        for i in range(1000):
            read += 1
            yield as_report(str(i), TEXT)

    results = _make(first="toy?ahead=5").distill(reports())
    for i in range(20):
        assert next(results).id == str(i)
    assert read <= 26


def test_identity_is_that_of_both(site, tmp_path) -> None:
    def identity(**options) -> str:
        return distiller_identity(PluginRef(name="consensus"), _make(**options))

    assert identity() == identity()
    others = [identity(policy="first"), identity(second="toy"), identity(first="toy?hedge=false")]
    assert len({identity(), *others}) == 4


def test_an_unknown_distiller_is_named(site) -> None:
    with pytest.raises(MissingError, match="no plugin 'toi'"):
        list(_make(first="toi").distill([]))


def test_contract(site) -> None:
    check_plugin("ecamp.distillers", "toy?ahead=3")
    check_plugin("ecamp.distillers", "consensus?first=toy&second=toy")


@pytest.mark.parametrize("breaks", ["id", "lost"])
def test_the_contract_finds_a_distiller_that_breaks_it(site, breaks: str) -> None:
    with pytest.raises(AssertionError, match="results and reports"):
        check_plugin("ecamp.distillers", f"toy?breaks={breaks}&ahead=3")
