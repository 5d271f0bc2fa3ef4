"""The `llm` distiller against a fake endpoint: every fault, nothing lost, no request sent twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from ecamp.api.distiller import Distilled, Report, Section
from ecamp.distill.llm.client import GIVE_UP, StoppedRun
from ecamp.distill.llm.rate_limit import Limits
from ecamp.errors import CorruptFileError, DataError, EcampError
from ecamp.testing.contract import check_plugin
from tests.distill.asking import (
    GOOD,
    LeapingClock,
    VirtualLoop,
    always,
    first,
    found,
    good,
    make,
    one,
    run,
    wait_until,
    where,
)
from tests.distill.fake_server import FakeServer, Turn, no_statements


def test_contract(tmp_path: Path) -> None:
    with FakeServer(no_statements) as server:
        check_plugin("ecamp.distillers", f"llm?model=m&endpoint={server.url}&cache={tmp_path}")
        assert server.asked


# --- faults ----------------------------------------------------------------------------------------

PASSING = {
    "429": Turn(status=429, headers=(("retry-after", "0.05"),)),
    "429 without a time": Turn(status=429),
    "429 until a date": Turn(status=429, headers=(("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),)),
    "500": Turn(status=500),
    "503": Turn(status=503, body=b"<html>busy</html>"),
    "timeout": Turn(fault="hang"),
    "half answer": Turn(fault="half"),
    "reset": Turn(fault="reset"),
    "slow drip": Turn(fault="drip"),
    "no JSON": Turn(body=b'{"choices": [{"mess'),
    "no completion": Turn(body=b'{"error": {"message": "overloaded"}}'),
    "no text": Turn(body=b'{"choices": [{"message": {"content": {}}}]}'),
    "not UTF-8": Turn(body=b"\xff\xfe"),
    "a list": Turn(body=b"[]"),
}  # fmt: skip


# One at a time and an hour's patience: where an answer stalls, the clock leaps over that hour.
PATIENT = {"concurrency": 1, "timeout": 3600}


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets an hour pass for all event loops."""
    clock = LeapingClock()
    monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda loop: clock.time(loop))
    return clock.leap


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_passing_fault_costs_one_more_request(
    fault: Turn, tmp_path: Path, leap: Callable[[], None]
) -> None:
    with FakeServer(good, first(fault), on_stall=leap) as server:
        rows, counts = run(tmp_path, server, map(one, range(4)), **PATIENT)
        assert set(server.asked.values()) == {2}
    assert [row.id for row in rows] == ["0", "1", "2", "3"]
    assert [found(row) for row in rows] == [[("effusion", 6, 14)]] * 4
    assert not [row.error for row in rows if row.error]
    assert (counts["requests"], counts["retries"]) == (8, 4)
    assert (counts["prompt tokens"], counts["answer tokens"]) == (400, 40)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Turn(status=429), "status 429", "status 429"),
        (Turn(status=500), "status 500", "status 500"),
        (Turn(fault="hang"), "timeout", "no complete answer within 3600 s"),
        (Turn(fault="drip"), "timeout", "no complete answer within 3600 s"),
        (Turn(fault="half"), "connection", "connection lost"),
        (Turn(fault="reset"), "connection", "connection lost"),
        (Turn(body=b"{"), "bad response", "not a chat completion"),
    ],
)
def test_a_lasting_fault_is_an_error_row(
    fault: Turn, kind: str, words: str, tmp_path: Path, leap: Callable[[], None]
) -> None:
    with FakeServer(good, where("1.", fault), on_stall=leap) as server:
        rows, counts = run(tmp_path, server, map(one, range(3)), attempts=3, **PATIENT)
        assert sorted(server.asked.values()) == [1, 1, 3]
        assert words in rows[1].error
        assert server.url in rows[1].error
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert counts[f"error: {kind}"] == 1
    assert counts["requests"] == 5

    with FakeServer(good) as healed:  # asked again, alone
        rows, counts = run(tmp_path, healed, map(one, range(3)), attempts=3)
        assert list(healed.asked.values()) == [1]
    assert not any(row.error for row in rows)
    assert counts["cached"] == 2


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "response_format"), (404, "/v1"), (422, ""), (307, "moved")],
)
def test_hopeless_requests_are_not_repeated(status: int, hint: str, tmp_path: Path) -> None:
    elsewhere = (("location", "http://192.0.2.1/v1/chat/completions"),)
    with FakeServer(good, always(Turn(status=status, headers=elsewhere))) as server:
        rows, counts = run(tmp_path, server, map(one, range(3)))
        assert list(server.asked.values()) == [1, 1, 1]
    assert all(f"status {status}" in row.error and hint in row.error for row in rows)
    assert counts[f"error: status {status}"] == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "too\\nlong"}}', "status 400: too long"),
        (b'{"error": "too long"}', "status 400: too long"),
        (b'{"detail": "too long"}', "status 400: too long"),
        (b"too long", "status 400: too long"),
        (b"[1]", "status 400: [1]"),
        (b"\xff", "status 400: \ufffd"),
        (b"", "status 400;"),
        (b"x" * 5000, "status 400: " + "x" * 200 + ";"),
    ],
)
def test_errors_of_the_endpoint_are_passed_on(body: bytes, words: str, tmp_path: Path) -> None:
    with FakeServer(good, always(Turn(status=400, body=body))) as server:
        (row,), _ = run(tmp_path, server, [one(0)])
    assert words in row.error


def test_a_refused_key_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "wrong")
    with FakeServer(good, where("3.", Turn(status=401))) as server:
        distiller = make(tmp_path, server.url, key_env="A_KEY", concurrency=1)
        rows = []
        with pytest.raises(StoppedRun, match=r"refuses the key, status 401.*\n.*key_env") as caught:
            rows.extend(distiller.distill(map(one, range(50))))
        assert server.url in str(caught.value)
        assert sum(server.asked.values()) == 4  # no one is asked after the refusal
        rows = list(make(tmp_path, server.url, offline=True).distill(map(one, range(4))))
    assert [bool(row.error) for row in rows] == [False, False, False, True]


def test_a_missing_key_stops_the_run(tmp_path: Path) -> None:
    with FakeServer(good, always(Turn(status=401))) as server:
        with pytest.raises(StoppedRun, match=r"requires a key.*\n.*key_env=NAME"):
            run(tmp_path, server, map(one, range(50)), concurrency=4)
        assert sum(server.asked.values()) <= 4


def test_an_endpoint_that_always_fails_is_given_up(tmp_path: Path) -> None:
    with FakeServer(good, always(Turn(status=500))) as server:
        rows, counts = run(tmp_path, server, map(one, range(60)), attempts=2, concurrency=1)
        assert sum(server.asked.values()) == 2 * GIVE_UP
    assert counts["error: status 500"] == GIVE_UP
    assert counts["error: endpoint given up"] == 60 - GIVE_UP
    assert "Run again later" in rows[-1].error


def test_scattered_failures_do_not_end_a_run(tmp_path: Path) -> None:
    def script(report: str, _: int) -> Turn:
        return Turn(status=404 if int(report.split()[-1][:-1]) % 2 else 200)

    with FakeServer(good, script) as server:
        rows, counts = run(tmp_path, server, map(one, range(3 * GIVE_UP)), concurrency=1)
    assert counts["error: status 404"] == 3 * GIVE_UP // 2
    assert [bool(row.error) for row in rows] == [False, True] * (3 * GIVE_UP // 2)


def test_an_unreachable_endpoint_is_an_error_row(tmp_path: Path) -> None:
    with FakeServer() as server:
        url = server.url
    (row,) = make(tmp_path, url, attempts=2).distill([one(0)])
    assert row.error == f"{url}: cannot be reached (ConnectError) (2 attempts)"


def test_all_wait_as_long_as_the_endpoint_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are in flight when one must wait; no request is sent before the time is over.

    The other is answered once the client has read that it is to wait.
    """
    busy = Turn(status=429, headers=(("retry-after", "0.5"),), after=2)
    real, paused = Limits.pause, []

    def script(report: str, time: int) -> Turn:
        return busy if "case 0." in report and time == 1 else Turn(fault="hold")

    def pause(self: Limits, seconds: float) -> None:
        real(self, seconds)
        paused.append((monotonic(), seconds))
        server.release()

    monkeypatch.setattr(Limits, "pause", pause)
    with FakeServer(good, script) as server:
        rows, _ = run(tmp_path, server, map(one, range(6)), concurrency=2)
        assert len(server.times) == 7
    ((since, seconds),) = paused
    assert seconds == 0.5
    assert [time < since for time in server.times] == [True] * 2 + [False] * 5
    assert server.times[2] >= since + 0.49  # a timer may wake a tick early
    assert not any(row.error for row in rows)


def test_a_wait_of_hours_is_not_retried(tmp_path: Path) -> None:
    busy = Turn(status=429, headers=(("retry-after", "86400"),))
    with FakeServer(good, always(busy)) as server:
        rows, _ = run(tmp_path, server, [one(0)])
        assert sum(server.asked.values()) == 1
    assert "status 429" in rows[0].error


def test_a_model_that_makes_things_up(tmp_path: Path) -> None:
    """The answers arrive, but are wrong: each is dropped and counted, or the row has an error."""
    items: list[Any] = json.loads(GOOD)["statements"] * 4
    items[1] = {**items[1], "evidence": "large effusion"}
    items[2] = {**items[2], "entity": "unicorn"}
    items[3] = {**items[3], "polarity": "perhaps"}
    answers = {"0.": json.dumps({"statements": items}), "1.": "no JSON at all", "2.": '{"x": 1}'}

    def answer(report: str) -> str:
        return next((text for mark, text in answers.items() if mark in report), GOOD)

    with FakeServer(answer) as server:
        rows, counts = run(tmp_path, server, map(one, range(4)))
        assert set(server.asked.values()) == {1}  # the same question would get the same answer
    assert found(rows[0]) == found(rows[3]) == [("effusion", 6, 14)]
    assert rows[0].dropped == {
        "evidence not in report": 1, "entity not in lexicon": 1, "wrong schema": 1,
    }  # fmt: skip
    assert rows[1].error == "answer of m: it is not JSON"
    assert "statements" in rows[2].error
    assert counts["error: unreadable answer"] == 2
    assert counts["dropped: wrong schema"] == 1


def test_a_truncated_answer_is_named(tmp_path: Path) -> None:
    with FakeServer(lambda _: GOOD[:40], always(Turn(finish="length"))) as server:
        (row,), _ = run(tmp_path, server, [one(0)])
    assert "raise max_tokens" in row.error


# --- order, sharing, cache ---------------------------------------------------------------------------


def test_order_is_kept_whatever_the_answers_take(tmp_path: Path) -> None:
    with FakeServer(good, where("0.", Turn(delay=0.15))) as server:
        rows, _ = run(tmp_path, server, map(one, range(120)), concurrency=8)
        assert server.most <= 8
    assert [row.id for row in rows] == [str(number) for number in range(120)]


@pytest.mark.parametrize(("status", "count"), [(200, 40), (400, 8)])
def test_equal_reports_share_one_request(status: int, count: int, tmp_path: Path) -> None:
    """The answer, or the failure, comes once eight have asked for it."""
    reports = [Report(str(number), "Effusion.", (Section("", 0, 9),)) for number in range(count)]
    with FakeServer(good, always(Turn(fault="hold", status=status))) as server:
        distiller = make(tmp_path, server.url, concurrency=8)
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(lambda: list(distiller.distill(reports)))
            wait_until(lambda: distiller.counts().get("shared", 0) == 7)
            server.release()
            rows = result.result()
        assert sum(server.asked.values()) == 1
    counts = distiller.counts()
    assert counts["shared"] + counts.get("cached", 0) == count - 1
    if status == 200:
        assert all(found(row) == [("effusion", 0, 8)] for row in rows)
    else:
        assert all("status 400" in row.error for row in rows)


def test_a_second_run_sends_no_request_and_answers_the_same(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        first, _ = run(tmp_path, server, map(one, range(10)))
        again, counts = run(tmp_path, server, map(one, range(10)))
        assert sum(server.asked.values()) == 10
    offline = make(tmp_path, "", offline=True, key_env="NOT_SET")
    assert list(offline.distill(map(one, range(10)))) == again == first
    assert counts == {"cached": 10}
    assert dict(offline.counts()) == {"cached": 10}


def test_offline_an_absent_answer_is_an_error_row(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        run(tmp_path, server, [one(0)])
    offline = make(tmp_path, "", offline=True)
    rows = list(offline.distill([one(0), one(1)]))
    assert [row.error for row in rows] == ["", "not in the cache of answers, and offline"]
    assert offline.counts()["error: not in the cache"] == 1


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"model": "n"}, 2),
        ({"prompt": "template-1"}, 2),
        ({"lexicon": "fundus"}, 2),
        ({"temperature": 0.5}, 2),
        ({"max_tokens": 99}, 2),
        ({"response_format": "none"}, 2),
        ({"timeout": 9, "concurrency": 3, "attempts": 2, "requests_per_minute": 6000}, 1),
    ],
)
def test_an_answer_is_keyed_by_all_it_depends_on(
    change: dict[str, Any], asked: int, tmp_path: Path
) -> None:  # fmt: skip
    with FakeServer(good) as server:
        run(tmp_path, server, [one(0)])
        run(tmp_path, server, [one(0)], **change)
        assert sum(server.asked.values()) == asked
        before, after = make(tmp_path, server.url), make(tmp_path, server.url, **change)
        assert (before.identity_fields() != after.identity_fields()) == (asked == 2)


def test_redaction_keys_the_answers_of_texts_that_it_changes(tmp_path: Path) -> None:
    reports = [one(0), one(1, "Effusion since 01/02/2020, case {}.")]
    with FakeServer(good) as server:
        run(tmp_path, server, reports)
        run(tmp_path, server, reports, redact=True)
        assert sorted(server.asked.values()) == [1, 1, 1]


def test_an_empty_report_is_not_asked(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        rows, _ = run(
            tmp_path, server, [Report("a", "", ()), Report("b", "  ", (Section("", 0, 2),))]
        )
        assert not server.asked
    assert rows == [Distilled("a"), Distilled("b")]


@pytest.mark.parametrize("text", ["\ud800 effusion", "\0 effusion", "\u2028 \U0001f600 effusion"])
def test_odd_text_arrives_as_it_is(text: str, tmp_path: Path) -> None:
    report = Report("0", text, (Section("", 0, len(text)),))
    with FakeServer(good) as server:
        rows, _ = run(tmp_path, server, [report])
        assert list(server.asked) == [text]
    assert found(rows[0]) == [("effusion", len(text) - 8, len(text))]


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        (tmp_path / "answers.sqlite").write_bytes(b"no database at all" * 99)
        with pytest.raises(CorruptFileError, match=r"answers\.sqlite.*\n.*Remove it"):
            run(tmp_path, server, [one(0)])
        (tmp_path / "file").write_text("")
        with pytest.raises(EcampError, match="cannot be written"):
            run(tmp_path / "file", server, [one(0)])


# --- limits ------------------------------------------------------------------------------------------


def test_a_token_budget_stops_and_resumes(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        asked = 0
        for _ in range(10):
            rows, counts = run(
                tmp_path, server, map(one, range(10)), budget_tokens=330, concurrency=1
            )
            assert counts.get("requests", 0) <= 3  # 110 tokens each
            asked += counts.get("requests", 0)
            spent = [row for row in rows if row.error]
            assert all(row.error.startswith("budget spent: 330 of 330 tokens") for row in spent)
            assert counts.get("error: budget spent", 0) == len(spent)
            if not spent:
                break
        assert asked == 10
        assert set(server.asked.values()) == {1}


def test_a_cost_budget_counts_both_prices(tmp_path: Path) -> None:
    with FakeServer(good) as server:  # 100 and 10 tokens per report: 0.0001 + 0.0001 each
        rows, counts = run(
            tmp_path, server, map(one, range(10)), concurrency=1,
            budget_cost=0.0008, price_prompt=1.0, price_answer=10.0,
        )  # fmt: skip
    assert counts["requests"] == 4
    assert "budget spent: 0.0008 of 0.0008" in rows[4].error


def test_tokens_are_estimated_where_the_endpoint_counts_none(tmp_path: Path) -> None:
    with FakeServer(good, usage=False) as server:
        _, counts = run(tmp_path, server, [one(0)])
        assert counts["prompt tokens"] == len(server.bodies[0]) // 3
    assert counts["answer tokens"] == len(GOOD) // 3


def turns(limits: Limits, count: int, *, slow: float = 0.0) -> list[float]:
    """Return the times at which concurrent requests may start; time stops for `slow` seconds first."""

    async def ask() -> list[float]:
        loop, times = asyncio.get_running_loop(), []

        async def one_turn() -> None:
            await limits.acquire()
            times.append(loop.time())

        await one_turn()
        await asyncio.sleep(slow)
        await asyncio.gather(*(one_turn() for _ in range(count - 1)))
        return times

    loop = VirtualLoop()
    try:
        return loop.run_until_complete(ask())
    finally:
        loop.close()


def test_requests_are_evenly_spaced() -> None:
    assert turns(Limits(), 5) == [0.0] * 5
    assert turns(Limits(600), 6) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    # Idle time does not allow a burst.
    assert turns(Limits(600), 4, slow=5.0) == pytest.approx([0.0, 5.0, 5.1, 5.2])


def test_nobody_has_a_turn_before_a_pause_is_over() -> None:
    async def paused(limits: Limits) -> list[float]:
        limits.pause(7.0)
        limits.pause(2.0)  # of two waits the longer one counts
        times = []
        for _ in range(3):
            await limits.acquire()
            times.append(asyncio.get_running_loop().time())
        return times

    for rate, apart in ((0.0, 0.0), (60.0, 1.0)):
        loop = VirtualLoop()
        times = loop.run_until_complete(paused(Limits(rate)))
        loop.close()
        assert 7.0 <= times[0] <= 7.0 * 1.1 + apart
        assert all(b - a >= apart - 1e-9 for a, b in itertools.pairwise(times))


def test_requests_are_paced(tmp_path: Path) -> None:
    began = monotonic()
    with FakeServer(good) as server:
        run(tmp_path, server, map(one, range(6)), requests_per_minute=600, concurrency=6)
    # However late a busy machine is, no request comes before its turn.
    assert len(server.times) == 6
    assert all(time >= began + 0.1 * k - 0.01 for k, time in enumerate(sorted(server.times)))


@pytest.mark.slow
def test_in_flight_is_full_and_never_more(tmp_path: Path) -> None:
    """64 are in flight before the first answer, and again after each single one, as long as there are more."""
    most, count = 64, 4 * 64
    with FakeServer(good, always(Turn(fault="hold"))) as server:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(run, tmp_path, server, map(one, range(count)), concurrency=most)
            for answered in range(count):
                left = min(most, count - answered)
                wait_until(
                    lambda answered=answered, left=left: (
                        server.in_flight == left and sum(server.answered.values()) == answered
                    )
                )
                server.release(1)
            rows, _ = result.result()
        assert server.most == most
    assert [row.id for row in rows] == [str(number) for number in range(count)]


# --- streaming ---------------------------------------------------------------------------------------


def test_a_bounded_number_of_reports_is_held(tmp_path: Path) -> None:
    taken, most = 0, 0

    def source() -> Iterator[Report]:
        nonlocal taken
        for number in range(400):
            taken += 1
            yield one(number)

    with FakeServer(good) as server:
        for done, _ in enumerate(make(tmp_path, server.url, concurrency=4).distill(source())):
            most = max(most, taken - done)
    assert taken == 400
    assert most <= 4 * 16 + 1


def test_a_failing_source_loses_nothing(tmp_path: Path) -> None:
    def source() -> Iterator[Report]:
        yield from map(one, range(7))
        raise DataError("row 8: no text")

    with FakeServer(good, always(Turn(delay=0.05))) as server:
        rows = []
        with pytest.raises(DataError, match="row 8"):
            rows.extend(make(tmp_path, server.url).distill(source()))
    assert sum(1 for _ in make(tmp_path, "", offline=True).distill(map(one, range(7)))) == 7
    with FakeServer(good) as server:
        seen = []
        iterator = make(tmp_path / "b", server.url).distill(source())
        with pytest.raises(DataError):
            seen.extend(row.id for row in iterator)
    assert seen == [str(number) for number in range(7)]


def test_ending_early_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FakeServer(good) as server:
        iterator = make(tmp_path, server.url, concurrency=4).distill(map(one, range(10_000)))
        assert next(iterator).id == "0"
        iterator.close()  # type: ignore[attr-defined]
        assert server.asked
    assert set(threading.enumerate()) <= before
    with FakeServer(good) as server:
        distiller = make(tmp_path, server.url)
        assert [row.id for row in distiller.distill([])] == []


def test_one_distiller_runs_twice(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        distiller = make(tmp_path, server.url)
        assert len(list(distiller.distill(map(one, range(3))))) == 3
        assert len(list(distiller.distill(map(one, range(5))))) == 5
    assert distiller.counts()["requests"] == 5
    assert distiller.counts()["cached"] == 3
