"""The page: `python app.py`, then open the address it prints. `python app.py --help` lists the options."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

from ptune_core.errors import PTuneError
from ptune_core.inference.client import InferenceClient
from ptune_core.runs.directory import data_directory, is_ephemeral
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.store import Store
from ptune_core.ui.page import build_page, launch
from ptune_core.ui.service import Service
from ptune_core.ui.uploads import Uploads


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit code."""
    parser = argparse.ArgumentParser(prog="app.py", description="PTune: P-tuning of frozen language models.")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, else from 7860 on)")
    parser.add_argument("--data-dir", help="where runs are kept (default: PTUNE_DATA_DIR, else the user's data folder)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _leave)
    if options.data_dir:
        os.environ["PTUNE_DATA_DIR"] = options.data_dir
    try:
        serve(options)
    except PTuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    """What a service manager or a container's stop asks for is no failure; the runs go on."""
    raise SystemExit(0)


def serve(options: argparse.Namespace) -> None:
    """Open the data directory, find the runs that went on without an app, and serve the page."""
    directory = data_directory()
    store = Store(directory)
    launcher = Launcher(store)
    on_space = bool(os.environ.get("SPACE_ID"))
    with InferenceClient(directory / "inference.log", directory) as inference:
        service = Service(store, launcher, inference, Uploads(directory / "uploads"), shared=on_space)
        threading.Thread(target=service.uploads.demo, name="example data", daemon=True).start()
        launcher.start_scheduler()
        page = build_page(service, ephemeral=is_ephemeral(), period=2500 if on_space else 1000)
        try:
            where = {"server_name": options.host, "server_port": options.port, "inbrowser": options.open}
            _, url, _ = launch(page, service, prevent_thread_lock=True, quiet=True, **where)
            print(f"PTune is open at {url}", flush=True)
            page.block_thread()
        finally:
            service.measures.close()
            launcher.close()


if __name__ == "__main__":
    raise SystemExit(main())
