"""The page's own components: the live plot, the strip and the list of runs.

Each is a `gr.HTML` with a script beside this file. The browser asks for what is new and draws it; the server sends
plain numbers and text, and the scripts only write `textContent`, so nothing a person typed can become markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr

from ptune_core.app import texts

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""A question from the browser -> its answer; both plain JSON."""

_HERE = Path(__file__).parent


def _plotly_directory() -> Path:
    spec = find_spec("plotly")
    assert spec is not None and spec.origin is not None, "plotly is a requirement"
    return Path(spec.origin).parent / "package_data"


PLOTLY_DIRECTORY = _plotly_directory()
"""Holds `plotly.min.js`; served to the browser, so that no other host is ever asked."""


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return (_HERE / name).read_text(encoding="utf-8")


def own_component(
    name: str,
    elem_id: str,
    classes: str,
    *,
    ask: Mapping[str, Answer] = MappingProxyType({}),
    scripts: Sequence[str] = (),
    **options: Any,
) -> gr.HTML:
    """A `gr.HTML` made of `NAME.html`, `dom.js` and `NAME.js` beside this file.

    Args:
        ask: What its script may call, by the names it calls it.
        scripts: Others that run before its own.
        options: Of `gr.HTML`, and what its script reads as `props`.
    """
    if ask:
        options["server_functions"] = [_server_function(called, answer) for called, answer in ask.items()]
    return gr.HTML(
        None,
        html_template=asset(f"{name}.html"),
        js_on_load="".join(asset(f"{script}.js") for script in ("dom", *scripts, name)),
        elem_id=elem_id,
        elem_classes=classes,
        **options,
    )


def _server_function(name: str, answer: Answer) -> Callable[[Any], dict[str, Any]]:
    """`answer` as a function that a component's script can call by `name`."""

    def function(question: Any) -> dict[str, Any]:
        # Open to anybody who can reach the page: what arrives may be anything.
        return answer(question if isinstance(question, dict) else {})

    function.__name__ = name
    return function


def live_plot(poll: Answer, period: int, elem_id: str) -> gr.HTML:
    """Progress, the four plots and samples of one run. Event: `moved`, when the run's state changes.

    The value is the run's id; `viewer` says who asks; `state` is the run's state as the rest of the page
    shows it, so that the script tells the page when it changes, and asks on after Resume.

    Args:
        poll: Answers `{"run", "cursor", "epoch", "viewer"}` with what is new, as `runs.live.since` does.
        period: Milliseconds between two questions.
    """
    return own_component(
        "live_plot",
        elem_id,
        "live-plot",
        ask={"poll": poll},
        scripts=("plot_parts",),
        head=f'<script src="gradio_api/file={PLOTLY_DIRECTORY / "plotly.min.js"}"></script>',
        period=period,
        viewer="",
        state="",
    )


def overlay(compare: Answer, period: int, elem_id: str) -> gr.HTML:
    """Loss and metric of the runs that are ticked in the list, and a table of the settings in which they differ.

    It draws with the live plot's library, the list tells it what is ticked and the strip who asks. While it is open,
    what follows it in its column is hidden.

    Args:
        compare: Answers `{"runs", "viewer"}` with what is new, as `comparison.compare` does.
        period: Milliseconds between two questions.
    """
    return own_component(
        "overlay", elem_id, "live-plot overlay", ask={"compare": compare}, scripts=("plot_parts",), period=period
    )


def strip(overview: Answer, period: int, elem_id: str) -> gr.HTML:
    """What the machine does now, with Open and Stop. Events: `open`, `halt` and `earlier`, all carrying `run`.

    Args:
        overview: Answers `{"viewer"}` with what the strip and the list of runs show.
        period: Milliseconds between two questions.
    """
    return own_component(
        "strip", elem_id, "strip", ask={"overview": overview}, period=period, viewer="", words=texts.STRIP
    )


def run_list(elem_id: str) -> gr.HTML:
    """All runs this viewer may see, newest first. The value is the chosen run's id. Event: `select`, carrying `run`.

    Those that are ticked are told to the overlay, in the browser.
    """
    return own_component("run_list", elem_id, "run-list")


def newest_run(elem_id: str) -> gr.HTML:
    """The run that was started last. Event: `open`, carrying `run`."""
    return own_component("newest_run", elem_id, "run-list newest-run")


def alarm_list(alarms: Answer, period: int, elem_id: str) -> gr.HTML:
    """What is wrong with one run, with buttons. The value is the run's id. Event: `fix`, carrying `run` and `key`.

    Args:
        alarms: Answers `{"run", "viewer"}` with the alarms, as `ui.results.alarms_answer` does.
        period: Milliseconds between two questions of the live plot; this one asks a third as often.
    """
    return own_component("alarms", elem_id, "alarms", ask={"alarms": alarms}, period=period, viewer="", state="")


def results_panel(results: Answer, period: int, elem_id: str) -> gr.HTML:
    """Samples, confusion matrix and all else a run has come to. Event: `use`, carrying `run` and `trial`.

    The value is the run's id; `trials` says how many a sweep has, 0 without one; a new `turn` draws again.

    Args:
        results: Answers `{"run", "viewer", "part", ...}`, as `ui.results.results_answer` does.
        period: Milliseconds between two questions of the live plot.
    """
    return own_component(
        "results", elem_id, "results", ask={"results": results}, period=period, viewer="", state="", trials=0, turn=""
    )
