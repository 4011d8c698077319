"""The command line: ``python -m ptune_core COMMAND``. The same functions as the page, without it.

Commands import what they need when they run, so `--help`, `init-settings` and `deploy` are there at once. An error made
for people goes to stderr and the exit code is 2; results go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import ptune_core
from ptune_core.commands import adapter, answer, imports, inspection, recipe, reports, train
from ptune_core.commands.arguments import USER_ERROR
from ptune_core.errors import DiskFull, PTuneError, SettingsError
from ptune_core.files import NO_ROOM
from ptune_core.training.settings import RunSettings

INTERRUPTED = 128 + signal.SIGINT
EXAMPLE_SPACE = "OWNER/ptune"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 an error made for people, 130 broken off by Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except PTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left; Python's own flush at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        print(f"error: {file_error(error)}", file=sys.stderr)
        return USER_ERROR


def file_error(error: OSError) -> PTuneError:
    """What to tell about a file or folder that the system refused, wherever in a command that was."""
    place = "" if error.filename is None else str(error.filename)
    if error.errno in NO_ROOM:
        return DiskFull("The disk is full", got=place, remedy="Free some space, or choose another place, and try again")
    remedy = "Choose another place, or change its permissions"
    return PTuneError(f"{place} cannot be read or written", got=error.strerror or str(error), remedy=remedy)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `run` of its result is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m ptune_core", description=ptune_core.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"PTune {ptune_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for module in (train, reports, answer, adapter, inspection, imports, recipe):
        module.declare(commands)

    init = commands.add_parser("init-settings", help="print settings with every option, its help and its bounds")
    init.set_defaults(run=init_settings_command)

    deploy = commands.add_parser("deploy", help="explain what the Spacefile would make of a Hugging Face Space")
    deploy.add_argument("--dry-run", action="store_true", help="needed for now: explain the plan and send nothing")
    deploy.add_argument("--repo-id", default=EXAMPLE_SPACE, metavar="OWNER/NAME", help="the Space")
    deploy.set_defaults(run=deploy_command)

    # No prefix: every flag, `--help` too, is app.py's to read.
    serve = commands.add_parser(
        "serve", help="open the page; flags as app.py, see serve --help", prefix_chars="\0", add_help=False
    )
    serve.add_argument("flags", nargs="*")
    serve.set_defaults(run=serve_command)
    return parser


def init_settings_command(arguments: argparse.Namespace) -> int:
    """Print the default settings, commented."""
    print(RunSettings().to_yaml(), end="")
    return 0


def deploy_command(arguments: argparse.Namespace) -> int:
    """Explain what a deployment would do."""
    from ptune_core.deploy import explain, read_spacefile

    if not arguments.dry_run:
        raise SettingsError(
            "This version plans a deployment but does not carry it out",
            needed="--dry-run",
            remedy="Make the calls it prints yourself, or wait for a later version",
        )
    folder = Path.cwd()
    print(explain(read_spacefile(folder / "Spacefile"), folder, arguments.repo_id, os.environ))
    return 0


def serve_command(arguments: argparse.Namespace) -> int:
    """Open the page; the flags are those of app.py."""
    entry = Path(ptune_core.__file__).parent.parent / "app.py"
    if not entry.is_file():
        raise SettingsError("The page's entry is not here", got=str(entry), remedy="Run serve from a clone of PTune")
    sys.argv = [str(entry), *arguments.flags]
    runpy.run_path(str(entry), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
