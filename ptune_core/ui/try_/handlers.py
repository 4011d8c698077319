"""What the Try tab does: plain values in, values by name out, as `TryTab.answer` has them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from ptune_core.app.adapter_view import AdapterView
from ptune_core.app.service import Service
from ptune_core.app.texts import trying
from ptune_core.errors import DeviceBusy, PTuneError, SettingsError
from ptune_core.inference.protocol import MAX_TURNS, Turn
from ptune_core.ui.show import inline_error
from ptune_core.ui.try_ import answers
from ptune_core.ui.turns import Turns

Answer = dict[str, Any]
Answers = Generator[Answer, None, None]
"""Updates for the page, one an answer or a part of it."""

BUSY_SECONDS = 3.0
"""How often a GPU that a run needs is asked for again."""

UPDATE_SECONDS = 0.1
"""Between two updates of a growing text: a browser that gets each token by itself may do nothing else."""

_MOST_TURNS_TEXT = 2_000_000
_TURNS: TypeAdapter[list[Turn]] = TypeAdapter(list[Turn])


@dataclass(frozen=True)
class Question:
    """What is asked, of which adapter and by whom.

    Attributes:
        compare: Whether the base model is asked too.
        boxes: What was typed, in the order of the template's columns.
    """

    viewer: str
    adapter: str
    compare: bool
    boxes: Sequence[str]


class TryHandlers:
    """Handlers over one service. A page's older request is not answered once it has made a newer one.

    Args:
        wait: Sleeps for so many seconds.
    """

    def __init__(self, service: Service, wait: Callable[[float], None] = time.sleep) -> None:
        self._service, self._wait = service, wait
        self._turns = Turns()

    def classify(self, page: str, question: Question) -> Answers:
        """The probabilities of both models, and a note."""
        return self._in_turn(page, lambda: self._classified(question))

    def generate(self, page: str, question: Question, turns: str, options: Mapping[str, Any]) -> Answers:
        """The texts of both models, growing; in a chat with what was said before."""
        return self._in_turn(page, lambda: self._generated(question, turns, options))

    def see(self, question: Question) -> Answer:
        """What the tuned model sees of what was typed; nothing while nothing was."""
        try:
            view, values = self._asked(question)
            return {"seen": answers.seen(self._service.seen(view.id, question.viewer, values)), "problem": ""}
        except SettingsError:
            return {}
        except PTuneError as error:
            return {"problem": inline_error(error)}

    def fill(self, viewer: str, adapter: str, index: int, num_boxes: int) -> list[Any]:
        """One of the data's rows, for the boxes."""
        view = self._service.adapters.view(adapter, viewer)
        row = view.examples[index]
        values = [row[column] for column in view.columns[:num_boxes]]
        return [*values, *[gr.skip()] * (num_boxes - len(values))]

    def _in_turn(self, page: str, make: Callable[[], Answers]) -> Answers:
        turn = self._turns.take(page)
        try:
            with contextlib.closing(self._when_free(make)) as parts:
                for answer in parts:
                    if not self._turns.is_newest(page, turn):
                        break
                    yield answer
        except PTuneError as error:
            if self._turns.is_newest(page, turn):
                yield {"working": "", "stop": gr.update(visible=False), "problem": inline_error(error)}
        finally:
            given_up = not self._turns.end(page, turn)
        if given_up:
            yield {}  # without any answer gradio empties the outputs, the newer answer's too

    def _when_free(self, make: Callable[[], Answers]) -> Answers:
        """The answer, as soon as the GPU is free for it."""
        while True:
            try:
                with contextlib.closing(make()) as parts:
                    yield from parts
                return
            except DeviceBusy:
                yield {"working": trying.WAITING_FOR_DEVICE, "stop": gr.update(visible=True)}
                self._wait(BUSY_SECONDS)

    def _classified(self, question: Question) -> Answers:
        view, values = self._asked(question)
        found = self._service.classify(view.id, question.viewer, values, compare=question.compare)
        labels, tuned = found["labels"], found["tuned"][0]
        base = found["base"] and answers.bars(answers.BASE, labels, found["base"][0], tuned)
        yield {
            "working": "",
            "stop": gr.update(visible=False),
            "base": base or "",
            "tuned": answers.bars(answers.TUNED, labels, tuned),
            "note": found["note"],
        }
        yield {"seen": answers.seen(self._service.seen(view.id, question.viewer, values))}

    def _generated(self, question: Question, turns: str, options: Mapping[str, Any]) -> Answers:
        view, values = self._asked(question)
        before = _read_turns(turns) if view.is_chat else []
        asked = {**options, "compare": question.compare} | ({"history": before} if before else {})
        shown_at, waiting = -math.inf, Answer()
        with contextlib.closing(self._service.generate(view.id, question.viewer, values, **asked)) as parts:
            for part in parts:
                tuned, base = part["tuned"], part["base"]
                if view.is_chat:
                    waiting |= _conversation(before, Turn(values=values, tuned=tuned, base=base))
                else:
                    waiting |= {"tuned": answers.written(answers.TUNED, tuned), "base": _beside(base)}
                if time.monotonic() - shown_at < UPDATE_SECONDS:
                    continue
                if view.is_chat and shown_at == -math.inf:
                    waiting |= {"input": "", "forget": gr.update(visible=True)}
                yield waiting
                shown_at, waiting = time.monotonic(), Answer()
        if waiting:
            yield waiting
        yield {"working": "", "stop": gr.update(visible=False)}
        if not before:  # of a later turn this would be a part alone
            yield {"seen": answers.seen(self._service.seen(view.id, question.viewer, values))}

    def _asked(self, question: Question) -> tuple[AdapterView, dict[str, str]]:
        view = self._service.adapters.view(question.adapter, question.viewer)
        if len(view.columns) > len(question.boxes):
            raise SettingsError(
                "This template has more columns than the page has boxes",
                got=str(len(view.columns)),
                needed=f"at most {len(question.boxes)}",
                remedy="Use `python -m ptune_core classify`",
            )
        values = dict(zip(view.columns, question.boxes, strict=False))
        if not any(text.strip() for text in values.values()):
            raise SettingsError("There is no text yet", remedy="Type one, or choose one from the data")
        return view, values


def _beside(base: str | None) -> str:
    return "" if base is None else answers.written(answers.BASE, base)


def _conversation(before: Sequence[Turn], turn: Turn) -> Answer:
    turns = [*before, turn]
    tuned = [(answers.said(each.values), each.tuned) for each in turns]
    base = [(answers.said(each.values), each.base or "") for each in turns]
    return {
        "turns": _TURNS.dump_json(turns[-MAX_TURNS:]).decode(),
        "tuned": answers.chat(answers.TUNED, tuned),
        "base": "" if turn.base is None else answers.chat(answers.BASE, base),
    }


def _read_turns(text: str) -> list[Turn]:
    """What the page kept of a conversation.

    Raises:
        SettingsError: Somebody else wrote it.
    """
    try:
        if len(text) > _MOST_TURNS_TEXT:
            raise ValueError("too long")
        return _TURNS.validate_json(text or "[]")[-MAX_TURNS:]
    except (ValidationError, ValueError) as error:
        raise SettingsError("The conversation cannot be read", remedy="Begin a new one") from error
