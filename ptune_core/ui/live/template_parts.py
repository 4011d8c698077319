"""The Train tab's own components: roles of columns, what the model reads of a row, and the labels' answer words.

Each is a `gr.HTML` with a script beside this file, as those of `live.py` are; the scripts write `textContent` alone.
"""

from __future__ import annotations

import gradio as gr

from ptune_core.ui.live.components import Answer, own_component


def column_roles(elem_id: str) -> gr.HTML:
    """The first rows, with a list of roles over each column. Event: `roles`, when one was chosen.

    The value: `token` of the data, its `columns`, some `rows`, the `choices` of roles as `[template column, what to
    call it]`, `roles`, template column -> data column, which is empty where a person wants none, and `turn`, which
    counts the choices, so that the answer to an earlier one does not undo a later one.
    """
    return own_component("column_roles", elem_id, "column-roles")


def template_preview(look: Answer, elem_id: str) -> gr.HTML:
    """What the model reads of one row, and buttons that write into the template.

    The value: the question for `look` but for its `row`, the `chips` to insert, and `plain`, the pieces of the first
    row without tokens, which stand there until there are tokens.

    Args:
        look: Answers what `TrainHandlers.look` does.
    """
    return own_component("template_preview", elem_id, "template-preview", ask={"look": look})


def answer_words(elem_id: str) -> gr.HTML:
    """Labels with their answer words to edit and, from the preview, the tokens of these. Event: `words`.

    The value: `pairs`, a list of `[label, answer words]`, and `turn`, which counts what was typed, so that the answer
    to a question of before does not undo it; or the list alone, which a person wanted in place of all that.
    """
    return own_component("answer_words", elem_id, "answer-words", render=False)
