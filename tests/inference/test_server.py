"""Whose turn it is: the server's order of work, with an engine that only counts."""

from __future__ import annotations

import queue
from collections.abc import Hashable, Iterator

from ptune_core.errors import AdapterError
from ptune_core.inference.protocol import Cancel, Describe, Envelope, Generate, Reply, Request
from ptune_core.inference.server import MAX_ACTIVE, MAX_WAITING, Server


class CountingEngine:
    """Answers `base/steps` (an adapter's name here) with that many parts; `bad` is refused; no base for Describe."""

    def __init__(self) -> None:
        self.closed = 0
        self.bases_in_use: list[str] = []
        self.clashes = 0

    def base_key(self, request: Request) -> Hashable | None:
        assert isinstance(request, Generate | Describe)
        if request.adapter == "bad":
            raise AdapterError("The adapter is broken")
        return None if isinstance(request, Describe) else request.adapter.split("/")[0]

    def answer(self, request: Request) -> Iterator[object]:
        assert isinstance(request, Generate | Describe)
        if isinstance(request, Describe):
            yield "description"
            return
        base, steps = request.adapter.split("/")
        self.bases_in_use.append(base)
        try:
            for step in range(int(steps)):
                self.clashes += len(set(self.bases_in_use)) > 1
                yield step
        finally:
            self.bases_in_use.remove(base)
            self.closed += 1

    def idle_limit(self) -> float:
        return 0.0


def serve(*envelopes: Envelope) -> tuple[CountingEngine, list[Reply]]:
    inbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
    for envelope in envelopes:
        inbox.put(envelope)
    engine, sent = CountingEngine(), list[Reply]()
    Server(engine, sent.append).run(inbox)
    return engine, sent


def ask(number: int, adapter: str) -> Envelope:
    return Envelope(id=number, request=Generate(adapter=adapter, values={}))


def order(sent: list[Reply]) -> list[int]:
    return [reply["id"] for reply in sent]


def test_active_requests_take_turns() -> None:
    _, sent = serve(ask(1, "a/3"), ask(2, "a/1"))
    assert order(sent) == [1, 2, 1, 2, 1, 1]
    assert [reply["kind"] for reply in sent if reply["id"] == 2] == ["part", "done"]


def test_only_some_are_active_and_the_rest_wait_their_turn() -> None:
    _, sent = serve(*[ask(number, "a/2") for number in range(MAX_ACTIVE + 1)])
    assert order(sent).index(MAX_ACTIVE) > max(i for i, reply in enumerate(sent) if reply == {**reply, "id": 0})


def test_another_base_model_waits_until_the_active_ones_are_done_and_nobody_overtakes() -> None:
    engine, sent = serve(ask(1, "a/3"), ask(2, "b/2"), ask(3, "a/1"))
    assert engine.clashes == 0
    done = [reply["id"] for reply in sent if reply["kind"] == "done"]
    assert done == [1, 2, 3]


def test_a_request_without_a_base_model_waits_for_no_base_model() -> None:
    _, sent = serve(ask(1, "a/5"), Envelope(id=2, request=Describe(adapter="b")))
    assert sent[1] == {"id": 2, "kind": "part", "value": "description"}


def test_a_cancelled_request_is_closed_and_says_nothing_more() -> None:
    engine, sent = serve(ask(1, "a/2"), ask(2, "a/1000000"), Envelope(id=2, request=Cancel()))
    assert set(order(sent)) == {1}
    assert engine.bases_in_use == []


def test_cancelling_an_active_request_frees_what_it_held() -> None:
    inbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
    engine, sent = CountingEngine(), list[Reply]()

    def send(reply: Reply) -> None:
        sent.append(reply)
        if len(sent) == 3:
            inbox.put(Envelope(id=1, request=Cancel()))

    inbox.put(ask(1, "a/1000000"))
    Server(engine, send).run(inbox)
    assert len(sent) == 3 and engine.closed == 1


def test_a_cancel_for_a_finished_request_is_nothing() -> None:
    _, sent = serve(Envelope(id=7, request=Cancel()), ask(1, "a/1"))
    assert order(sent) == [1, 1]


def test_an_error_ends_only_its_own_request() -> None:
    _, sent = serve(ask(1, "bad"), ask(2, "a/1"))
    assert sent[0]["kind"] == "error" and sent[0]["value"]["what"] == "The adapter is broken"
    assert [reply["kind"] for reply in sent[1:]] == ["part", "done"]


def test_a_full_queue_refuses_with_a_reason() -> None:
    _, sent = serve(*[ask(number, "a/1") for number in range(MAX_WAITING + 1)])
    refused = [reply for reply in sent if reply["kind"] == "error"]
    assert [reply["id"] for reply in refused] == [MAX_WAITING]
    assert "Too many requests" in refused[0]["value"]["what"]
