"""The `llm` distiller: what is sent to an endpoint, where to, and what never leaves."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ecamp.api.distiller import Report, Section
from ecamp.api.plugin_ref import PluginRef
from ecamp.config import validate
from ecamp.distill.llm import LLMDistiller
from ecamp.errors import UsageError
from tests.distill.asking import good, make, one, run
from tests.distill.fake_server import FakeServer


def test_the_request(tmp_path: Path) -> None:
    with FakeServer(good) as server:
        run(tmp_path, server, [one(0)])
        run(tmp_path, server, [one(0)], response_format="json_object", max_tokens=7)
        run(tmp_path, server, [one(0)], response_format="none",
            max_tokens_name="max_completion_tokens")  # fmt: skip
        run(tmp_path, server, [one(0)], prompt="template-1")
        first, second, third, fourth = map(json.loads, server.bodies)
        assert b"POST /v1/chat/completions HTTP/1.1" in server.heads[0]
        assert b"authorization" not in server.heads[0].lower()
    assert first["model"] == "m"
    assert first["temperature"] == 0
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    assert first["messages"][1]["content"] == "Report:\nSmall effusion, case 0."
    schema = first["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert "effusion" in json.dumps(schema["schema"])
    assert second["response_format"] == {"type": "json_object"}
    assert second["max_tokens"] == 7
    assert "response_format" not in third
    assert "max_completion_tokens" in third
    assert "response_format" not in fourth


def test_redacted_words_never_leave(tmp_path: Path) -> None:
    text = "Dr. Smith on 01/02/2020, MRN 4455: small effusion. Smith agrees."
    report = Report("0", text, (Section("findings", 0, len(text)),))
    with FakeServer(good) as server:
        rows, counts = run(tmp_path, server, [report], redact=True)
        sent = b"".join(server.bodies)
    assert not [word for word in (b"Smith", b"2020", b"4455") if word in sent]
    assert text[rows[0].statements[0].start :].startswith("effusion")
    assert {k: v for k, v in counts.items() if k.startswith("redacted")} == {
        "redacted: NAME": 2, "redacted: DATE": 1, "redacted: ID": 1,
    }  # fmt: skip


def test_the_cache_contains_no_report(tmp_path: Path) -> None:
    with FakeServer(lambda _: "None.") as server:
        run(tmp_path, server, [one(0, "A very private effusion.")], prompt="template-1")
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"None." in stored
    assert b"private" not in stored
    assert tmp_path.joinpath("answers.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no endpoint given"),
        ({"endpoint": "http://10.0.0.5:8000/v1"}, "plain http"),
        ({"endpoint": "http://localhost.example.org/v1"}, "plain http"),
        ({"endpoint": "http://127.0.0.1.example.org/v1"}, "plain http"),
        ({"endpoint": "http://0.0.0.0:8000/v1"}, "plain http"),
        ({"endpoint": "ftp://127.0.0.1/v1"}, "not an http address"),
        ({"endpoint": "127.0.0.1:8000"}, "not an http address"),
        ({"endpoint": "http://[::1"}, "not an http address"),
        ({"endpoint": "https://me:secret@example.org/v1"}, "key_env"),
        ({"endpoint": "https://example.org/v1?key=secret"}, "key_env"),
        ({"endpoint": "https://example.org/v1", "budget_cost": 3.0}, "price_prompt"),
    ],
)
def test_options_refused_before_anything_is_sent(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        LLMDistiller(LLMDistiller.Config(model="m", **options))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "https://example.org/v1"},
        {"endpoint": "http://127.0.0.1:8000/v1"},
        {"endpoint": "http://127.8.9.1:8000/v1/chat/completions"},
        {"endpoint": "http://localhost:11434/v1/"},
        {"endpoint": "http://[::1]:8000/v1"},
        {"endpoint": "http://10.0.0.5:8000/v1", "allow_plain_http": True},
        {"offline": True},
    ],
)
def test_valid_options_are_accepted(options: dict[str, Any]) -> None:
    LLMDistiller(LLMDistiller.Config(model="m", **options))


def test_an_llm_distiller_has_a_one_line_form() -> None:
    ref = PluginRef.parse(
        "llm?endpoint=http://127.0.0.1:8000/v1&model=Org/Model-7B&redact=true&concurrency=64"
    )
    config = validate(LLMDistiller.Config, ref.options, str(ref))
    assert config.model == "Org/Model-7B"
    assert config.redact is True
    assert config.concurrency == 64
    for name, field in LLMDistiller.Config.model_fields.items():
        assert field.description, name


def test_requests_to_this_machine_bypass_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(good) as proxy, FakeServer(good) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        run(tmp_path, server, [one(0)])
        assert not proxy.heads
        assert server.heads
        # Another machine is reached through it.
        remote = make(tmp_path, "http://pacs.invalid/v1", allow_plain_http=True, model="n")
        assert not next(iter(remote.distill([one(0)]))).error
        assert proxy.heads[0].startswith(b"POST http://pacs.invalid/v1/chat/completions")


def test_a_closed_database_is_found_again(tmp_path: Path) -> None:
    """An entry written by `put` is visible to any other reader at once."""
    with FakeServer(good) as server:
        iterator = make(tmp_path, server.url, concurrency=1).distill(map(one, range(3)))
        next(iterator)
        with sqlite3.connect(tmp_path / "answers.sqlite") as reader:
            assert reader.execute("SELECT count(*) FROM answers").fetchone()[0] >= 1
        assert len(list(iterator)) == 2
