"""What the page does, for programs: named endpoints for `gradio_client`, and MCP tools where the app has `--mcp`.

What the docstrings of endpoints say is what a program's author or a language model reads about them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ptune_core.app.service import Service
from ptune_core.ui.api.adapters import AdapterApi
from ptune_core.ui.api.runs import RunApi
from ptune_core.ui.show import told

INFERENCE: dict[str, Any] = {"concurrency_id": "inference", "concurrency_limit": 4}
"""How the endpoints that ask the inference process are registered: in the same queue as the page's own requests."""


def add_api(service: Service) -> None:
    """Register every endpoint on the page that is being built."""
    api = Api(service)
    for endpoint in api.endpoints():
        options = INFERENCE if endpoint in (api.classify, api.generate, api.label_rows) else {"concurrency_limit": None}
        gr.api(told(endpoint), api_name=endpoint.__name__, **options)


class Api(RunApi, AdapterApi):
    """All endpoints over one service."""

    def endpoints(self) -> tuple[Callable[..., Any], ...]:
        """Every endpoint; its name is the function's."""
        return (
            self.list_runs, self.preview, self.measure, self.start_run, self.run_status, self.run_metrics,
            self.run_results, self.stop_run, self.resume_run, self.move_run_up, self.use_trial, self.delete_run,
            self.list_adapters, self.bring_adapter, self.remove_adapter, self.classify, self.generate, self.label_rows,
            self.adapter_link, self.push_adapter,
        )  # fmt: skip
