"""Colours, type and spacing. Fonts come from gradio's own files, so that no other host is asked."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

CSS = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def build_theme() -> gr.themes.Base:
    """One accent colour on quiet greys, light and dark.

    Weights 400 and 700 only: gradio's files of the weights between hold no more than a few letters.
    """
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        text_size="md",
        font=[gr.themes.utils.fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.utils.fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    ).set(
        body_background_fill="#f7f8fa",
        body_background_fill_dark="#0e131f",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161d2c",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="700",
        block_info_text_size="*text_sm",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0f1623",
        input_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1d2637",
        button_secondary_border_color="*neutral_300",
        button_border_width="1px",
    )
