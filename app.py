"""The page: `python app.py`, then open the address it prints. `python app.py --help` lists the options."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import MutableMapping, Sequence
from importlib.util import find_spec
from types import FrameType

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

from ptune_core.app.service import Service
from ptune_core.app.uploads import Uploads
from ptune_core.errors import PTuneError, SettingsError
from ptune_core.inference.client import InferenceClient
from ptune_core.runs.directory import data_directory, is_ephemeral
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.standby import Standby
from ptune_core.runs.store import Store
from ptune_core.ui.page import build_page, launch

MCP = "mcp>=1.21,<2"
"""What `--mcp` needs. Not `gradio[mcp]`: that takes pydantic back to a version before ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit code."""
    parser = argparse.ArgumentParser(prog="app.py", description="PTune: P-tuning of frozen language models.")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, else from 7860 on)")
    parser.add_argument("--data-dir", help="where runs are kept (default: PTUNE_DATA_DIR, else the user's data folder)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--auth",
        metavar="NAME:PASSWORD",
        help="ask everybody for this name and password (better in PTUNE_AUTH: others on this machine can read flags)",
    )
    parser.add_argument("--mcp", action="store_true", help=f"the endpoints as MCP tools too; needs pip install '{MCP}'")
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


def login(flag: str | None, environ: MutableMapping[str, str]) -> list[tuple[str, str]] | None:
    """Name and password that the page asks for; None if it asks for none.

    `PTUNE_AUTH` is taken out of the environment, as workers inherit what begins with PTUNE_.

    Raises:
        SettingsError: One of the two is missing.
    """
    told = flag or environ.get("PTUNE_AUTH")
    environ.pop("PTUNE_AUTH", None)
    if told is None:
        return None
    name, _, password = told.partition(":")
    if not name or not password:
        raise SettingsError("--auth needs a name and a password", needed="NAME:PASSWORD")
    return [(name, password)]


def serve(options: argparse.Namespace) -> None:
    """Open the data directory, find the runs that went on without an app, and serve the page."""
    if options.mcp and find_spec("mcp") is None:
        remedy = f"Run: {sys.executable} -m pip install '{MCP}'"
        raise SettingsError("--mcp needs a package that is not installed", got="no package mcp", remedy=remedy)
    auth = login(options.auth, os.environ)
    directory = data_directory()
    store = Store(directory)
    launcher = Launcher(store, standby=Standby)
    on_space = bool(os.environ.get("SPACE_ID"))
    with InferenceClient(directory / "inference.log", directory) as inference:
        service = Service(store, launcher, inference, Uploads(directory / "uploads"), shared=on_space)
        threading.Thread(target=service.uploads.demo, name="example data", daemon=True).start()
        launcher.start_scheduler()
        launcher.expect()  # whoever starts the app is about to open the page
        page = build_page(service, ephemeral=is_ephemeral(), period=2500 if on_space else 1000)
        try:
            where = {"server_name": options.host, "server_port": options.port, "inbrowser": options.open}
            how = {"auth": auth, "mcp_server": options.mcp, "prevent_thread_lock": True, "quiet": True}
            _, url, _ = launch(page, service, **where, **how)
            if page.mcp_error:  # gradio goes on without a word
                raise SettingsError("The MCP tools could not be offered", got=page.mcp_error)
            print(f"PTune is open at {url}", flush=True)
            page.block_thread()
        finally:
            service.measures.close()
            launcher.close()


if __name__ == "__main__":
    raise SystemExit(main())
