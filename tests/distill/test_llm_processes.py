"""The `llm` distiller and the operating system: killed, two at a time, and what of its key is left."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ecamp.distill.llm import LLMDistiller
from ecamp.distill.llm.cache import AnswerCache, Reply, cache_key
from ecamp.errors import EcampError, UsageError
from tests.distill.asking import GOOD, always, good, make, one, run, wait_until
from tests.distill.fake_server import FakeServer, Turn, no_statements

# Distils N reports to a file, a row each as soon as it is there; then prints its counts.
CLIENT = """
import json, sys
from pathlib import Path
from tests.distill.asking import make, one
url, cache, out, count = sys.argv[1:]
distiller = make(Path(cache), url, concurrency=8)
with open(out, "w") as file:
    for row in distiller.distill(map(one, range(int(count)))):
        print(row.id, len(row.statements), row.error, file=file, flush=True)
print(json.dumps(dict(distiller.counts())))
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, arguments)], text=True, cwd=root,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# --- kill -9 -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_client_resumes(tmp_path: Path) -> None:
    """20 answers are given, then the server holds the rest; the client is killed with 8 in flight."""
    count, given, in_flight = 60, 20, 8

    def script(report: str, time_: int) -> Turn:
        held = int(report.split()[-1].rstrip(".")) >= given and time_ == 1
        return Turn(fault="hold" if held else "")

    out, cache = tmp_path / "rows", tmp_path / "cache"
    with FakeServer(good, script) as server:
        client = start(server.url, cache, out, count)
        wait_until(lambda: len(rows(out)) == given)
        wait_until(lambda: sum(server.asked.values()) == given + in_flight)
        os.kill(client.pid, signal.SIGKILL)
        client.communicate()
        assert rows(out) == [f"{number} 1 " for number in range(given)]
        server.release()

        again = start(server.url, cache, out, count)
        printed, _ = again.communicate()
        asked = [server.asked[one(number).text] for number in range(count)]
        # No answered report is sent again; those in flight are, since their answers were lost.
        assert asked == [1] * given + [2] * in_flight + [1] * (count - given - in_flight)
    assert again.returncode == 0
    assert rows(out) == [f"{number} 1 " for number in range(count)]
    assert json.loads(printed) == {
        "cached": given, "requests": count - given,
        "prompt tokens": 100 * (count - given), "answer tokens": 10 * (count - given),
    }  # fmt: skip


@pytest.mark.slow
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path) -> None:
    """Killed again and again at moments that nobody chose; at last every report has its answer."""
    out, cache, count = tmp_path / "rows", tmp_path / "cache", 200
    with FakeServer(good, latency=0.02) as server:
        for kills in range(4):
            client = start(server.url, cache, out, count)
            wait_until(lambda goal=(kills + 1) * 40: len(server.asked) >= goal)
            os.kill(client.pid, signal.SIGKILL)
            client.communicate()
        last = start(server.url, cache, out, count)
        printed, _ = last.communicate()
        # One report more than once only where a kill met it in flight: at most 8 a kill.
        again = {report: times for report, times in server.asked.items() if times > 1}
        assert len(server.asked) == count
        assert sum(again.values()) - len(again) <= 4 * 8
    assert rows(out) == [f"{number} 1 " for number in range(count)]
    counts = Counter(json.loads(printed))
    assert counts["cached"] + counts["requests"] == count


# --- two processes on one cache ----------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    """Both distil the same reports at the same time; each is sent once, by one of them."""
    count = 150
    with FakeServer(good, latency=0.03) as server:
        clients = [start(server.url, tmp_path / "cache", tmp_path / f"{i}", count) for i in (0, 1)]
        printed = [json.loads(client.communicate()[0]) for client in clients]
        assert set(server.asked.values()) == {1}
        assert len(server.asked) == count
    expected = [f"{number} 1 " for number in range(count)]
    assert rows(tmp_path / "0") == rows(tmp_path / "1") == expected
    assert sum(counts.get("requests", 0) for counts in printed) == count
    assert sum(counts.get("cached", 0) for counts in printed) == count


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    key = cache_key(b"x")
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ecamp.distill.llm.cache import AnswerCache, cache_key\n"
        "cache = AnswerCache(Path(sys.argv[1])); print(cache.claim(cache_key(b'x')), flush=True)\n"
        "time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    cache = AnswerCache(tmp_path)
    assert not cache.claim(key)
    assert cache.claim(cache_key(b"y"))
    other.kill()
    other.communicate()
    assert cache.claim(key)
    cache.release(key)
    cache.close()


def test_an_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    reply = Reply("odd \ud800 \0 \u2028 text", "length", 3, 4)
    first, second = AnswerCache(tmp_path), AnswerCache(tmp_path)
    first.put(b"k" * 32, reply)
    assert second.get(b"k" * 32) == reply
    assert second.get(b"l" * 32) is None
    first.close()
    second.close()


# --- the key -----------------------------------------------------------------------------------------

SECRET = "sk-Zq7-very-secret-key-93"


def test_the_key_is_nowhere_but_in_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The endpoint repeats the key wherever it can: in answers, in errors, in a refusal."""
    monkeypatch.setenv("A_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": {"message": "x" * 180 + f" Bearer {SECRET} is wrong"}}).encode()
    turns = {"0.": Turn(), "1.": Turn(status=400, body=echo), "2.": Turn(status=500, body=echo),
             "3.": Turn(body=b"{" + SECRET.encode()), "4.": Turn(fault="half"),
             "5.": Turn(fault="hang"), "6.": Turn(status=429, body=SECRET.encode())}  # fmt: skip

    def script(report: str, _: int) -> Turn:
        return next((turn for mark, turn in turns.items() if f"case {mark}" in report), Turn())

    said = json.loads(GOOD)
    said["statements"].append({**said["statements"][0], "evidence": SECRET})
    told: list[str] = []
    options = {"key_env": "A_KEY", "attempts": 2, "timeout": 0.3, "concurrency": 2}
    with FakeServer(lambda _: json.dumps(said), script) as server:
        distiller = make(tmp_path, server.url, **options)
        for row in distiller.distill(map(one, range(8))):
            told += [repr(row), json.dumps(row.as_json(one(int(row.id))))]
        assert f"authorization: bearer {SECRET}".encode().lower() in server.heads[0].lower()
        told += [repr(distiller), repr(vars(distiller)), repr(distiller.identity_fields())]
        told += [repr(distiller.counts()), repr(distiller.config)]
    with FakeServer(no_statements, always(Turn(status=401, body=echo))) as server:
        with pytest.raises(EcampError) as caught:
            run(tmp_path, server, [one(9)], **options)
        error: BaseException | None = caught.value
        while error is not None:
            told += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
    told += [record.getMessage() for record in caplog.records]
    told += [str(record.__dict__) for record in caplog.records]
    told += capfd.readouterr()
    told += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert caplog.records, "debug logging is on, so there is something to search"
    assert sum("case" in text or "effusion" in text for text in told) > 4
    for text in told:
        assert SECRET not in text
        assert SECRET[:12] not in text  # nor a part, where a message was cut


@pytest.mark.parametrize(
    "value", ["", "  ", "two words", "line\nbreak", "\u0442\u0430\u0439\u043d\u0430"]
)
def test_a_key_that_cannot_be_one(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", value)
    distiller = make(tmp_path, "http://127.0.0.1:9/v1", key_env="A_KEY")
    with pytest.raises(UsageError, match="key_env") as caught:
        distiller.distill([one(0)])
    assert not value.strip() or value not in str(caught.value)


def test_the_key_in_place_of_its_name_is_not_repeated(tmp_path: Path) -> None:
    distiller = make(tmp_path, "http://127.0.0.1:9/v1", key_env=SECRET)
    with pytest.raises(UsageError, match="not the key itself") as caught:
        distiller.distill([one(0)])
    assert SECRET not in str(caught.value)


def test_the_plugin_describes_itself() -> None:
    assert LLMDistiller.summary
    assert LLMDistiller.licence
    assert LLMDistiller.citation
