"""What Start does."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ptune_core.ui.parts import Page, then_show
from ptune_core.ui.show import EVENT, shown
from ptune_core.ui.train_handlers import TrainHandlers, new_key


def wire_start(parts: Page, handlers: TrainHandlers) -> None:
    train = parts.train
    names = {"base_model": train.base_model, "template": train.prompt.template, **train.settings}

    def start(viewer: str, key: str, token: str, **values: Any) -> list[Any]:
        run_id, message = handlers.start(viewer, key, token, values)
        said = gr.update(value=message, visible=True)
        if run_id is None:
            return [gr.skip(), gr.skip(), said, gr.skip()]
        return [run_id, new_key(), said, gr.Tabs(selected="runs")]

    started = train.start.click(
        shown(start),
        inputs_kwargs={
            "viewer": parts.viewer,
            "key": train.key,
            "token": train.data.token,
            "answers": train.data.answers,
            "roles": train.data.roles,
            **names,
        },
        outputs=[parts.selected, train.key, train.message, parts.tabs],
        **EVENT,
    )
    then_show(started, parts)
