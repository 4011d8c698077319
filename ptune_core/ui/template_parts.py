"""The Train tab's own components: roles of columns, what the model reads of a row, and the labels' answer words.

Each is a `gr.HTML` with a script beside this file, as those of `live.py` are; the scripts write `textContent` alone.
"""

from __future__ import annotations

import gradio as gr

from ptune_core.ui.live import Answer, asset, server_function


def column_roles(elem_id: str) -> gr.HTML:
    """The first rows, with a list of roles over each column. Event: `roles`, when one was chosen.

    The value: `token` of the data, its `columns`, some `rows`, the `choices` of roles as `[template column, what to
    call it]`, `roles`, template column -> data column, which is empty where a person wants none, and `turn`, which
    counts the choices, so that the answer to an earlier one does not undo a later one.
    """
    return gr.HTML(
        None,
        html_template=asset("column_roles.html"),
        js_on_load=asset("column_roles.js"),
        elem_id=elem_id,
        elem_classes="column-roles",
    )


def template_preview(look: Answer, elem_id: str) -> gr.HTML:
    """What the model reads of one row, and buttons that write into the template.

    The value: the question for `look` but for its `row`, the `chips` to insert, and `plain`, the pieces of the first
    row without tokens, which stand there until there are tokens.

    Args:
        look: Answers what `TrainHandlers.look` does.
    """
    return gr.HTML(
        None,
        html_template=asset("template_preview.html"),
        js_on_load=asset("template_preview.js"),
        server_functions=[server_function("look", look)],
        elem_id=elem_id,
        elem_classes="template-preview",
    )


def answer_words(elem_id: str) -> gr.HTML:
    """Labels with their answer words to edit and, from the preview, the tokens of these. Event: `words`.

    The value: a list of `[label, answer words]`.
    """
    return gr.HTML(
        None,
        html_template=asset("answer_words.html"),
        js_on_load=asset("answer_words.js"),
        elem_id=elem_id,
        elem_classes="answer-words",
        render=False,
    )
