"""What the strip says: one line in less and less room, and who waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptune_core.app import texts
from ptune_core.app.overview import overview
from ptune_core.data.ingest import ingest_text
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings

LINES = [
    {"kind": "phase", "phase": "training"},
    {"kind": "plan", "steps": 600, "metric": "accuracy"},
    {"kind": "eval", "step": 1, "loss": 0.6, "value": 0.871, "best": True, "seconds": 1.0},
    *({"kind": "step", "step": step, "loss": 0.7, "seconds": 0.5 * step} for step in range(1, 341)),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def submit(store: Store, tmp_path: Path) -> Callable[..., str]:
    table = ingest_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(8)), tmp_path / "table")

    def start(key: str, **settings: Any) -> str:
        return store.submit(RunSettings(data="reviews.csv", **settings), table, owner="ana", key=key)

    return start


def shown(store: Store) -> dict[str, Any]:
    return overview(store.list(None), store.queue_position, texts.IDLE_CPU)


def test_the_base_models_words_are_the_first_to_go(store: Store, submit: Callable[..., str]) -> None:
    submit("1", base_model="openai-community/gpt2")
    run = store.claim_next()
    assert run is not None
    files = RunDirectory(run.directory)
    files.metrics.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    active = shown(store)["active"]
    data = run.name.partition(" on ")[2]
    rest = "step 340/600 · 2 min 10 s left · accuracy 0.871"
    assert active["lines"] == [
        f"Training {run.name} · {rest}",
        f"Training {data} · {rest}",
        f"{data} · 340/600 · 2 min 10 s · 0.871",
        "340/600 · 2 min 10 s · 0.871",
        "340/600 · 2 min 10 s",
        "340/600",
    ]
    assert active["progress"] == "340/600" and active["can_stop"]
    files.request_stop()
    stopping = shown(store)["active"]
    assert "Stopping" in stopping["lines"][0] and not stopping["can_stop"]


def test_a_name_that_somebody_gave_is_not_cut(store: Store, submit: Callable[..., str]) -> None:
    submit("1", name="Notes on love")
    store.claim_next()
    assert all("Notes on love" in line for line in shown(store)["active"]["lines"][:1])
    assert not any(line.startswith("Training love") for line in shown(store)["active"]["lines"])


def test_those_who_wait_are_listed_in_their_order(store: Store, submit: Callable[..., str]) -> None:
    first, second, third = (submit(str(i), name=f"run {i}") for i in range(3))
    assert shown(store)["active"]["lines"] == ["run 0 waits: next in the queue"]
    assert [each["id"] for each in shown(store)["waiting"]] == [second, third]
    store.claim_next()
    store.move_up(third, None)
    assert [each["line"] for each in shown(store)["waiting"]] == ["1. run 2", "2. run 1"]
    assert shown(store)["active"]["id"] == first


def test_nothing_goes_on(store: Store) -> None:
    found = shown(store)
    assert found["active"] is found["newest"] is None and found["waiting"] == found["runs"] == []
    assert found["idle"][0].startswith("Ready · CPU only") and len(found["idle"][-1]) < 20


def test_an_end_is_told_in_less_room_without_the_baselines() -> None:
    said = "Done after 52 s. Accuracy 0.942 (before: zero-shot 0.520, majority 0.510)."
    lines = texts.ended(["demo on reviews.csv", "reviews.csv"], said)
    assert lines[0] == f"Ready · demo on reviews.csv · {said}"
    assert lines[-1] == "Accuracy 0.942" and [len(line) for line in lines] == sorted(map(len, lines), reverse=True)


def test_a_gpu_is_named_with_its_memory() -> None:
    assert texts.idle_gpu("NVIDIA H100 80GB HBM3, 81559 MiB")[0] == "Ready · GPU: NVIDIA H100 80GB HBM3, 80 GiB"
    assert texts.idle_gpu("Strange card")[0] == "Ready · GPU: Strange card"
