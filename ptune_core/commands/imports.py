"""`import`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ptune_core.adapters.archive import refuse_pickle
from ptune_core.commands.arguments import Commands
from ptune_core.errors import PTuneError, SettingsError, TemplateError
from ptune_core.prompt.template import TargetKind
from ptune_core.training.settings import RunSettings

if TYPE_CHECKING:
    from ptune_core.prompt.foreign.common import Imported

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 1 << 21


def declare(commands: Commands) -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "import",
        help="turn a template of NeMo or OpenPrompt into settings, or with its vectors into an adapter",
        description="Print the settings that a template of NeMo or OpenPrompt means here. With --vectors, --base-model "
        "and --out write an adapter instead, which classify, chat and export take. Adapters of PEFT need no import; to "
        "give one labels, write a template of PTune with --text, and name the adapter with --vectors.",
    )
    command.add_argument("source", nargs="?", type=Path, metavar="FILE",
                         help="configuration of NeMo or OpenPrompt (YAML, JSON), or its templates")  # fmt: skip
    command.add_argument("--text", help="the template itself, instead of a file")
    command.add_argument("--choice", type=int, default=0, metavar="N", help="line of a template file (default: 0)")
    command.add_argument("--task", help="taskname, if NeMo's configuration has several")
    command.add_argument("--target", choices=("answer", "mask"),
                         help="what OpenPrompt's mask is: the answer of a decoder, or a mask, the default")  # fmt: skip
    command.add_argument("--column", default="label", metavar="NAME",
                         help="data column of OpenPrompt's target (default: label)")  # fmt: skip
    command.add_argument("--front", type=int, default=0, metavar="N",
                         help="virtual tokens before everything, as OpenPrompt's SoftTemplate has them")  # fmt: skip
    command.add_argument("--verbalizer", type=Path, metavar="FILE",
                         help="label words: JSON, or OpenPrompt's text with a line for each label")  # fmt: skip
    command.add_argument("--verbalizer-choice", type=int, default=0, metavar="N",
                         help="which of several verbalizers (default: 0)")  # fmt: skip
    command.add_argument("--vectors", type=Path, metavar="FILE",
                         help="the trained vectors: a .safetensors file, or an adapter's folder or zip")  # fmt: skip
    command.add_argument("--base-model", metavar="ID", help="a Hub id or folder: whose vectors they are")
    command.add_argument("--revision", help="branch, tag or commit of a Hub base model")
    command.add_argument("--out", type=Path, metavar="PLACE", help="the adapter to write: a new folder, or FILE.zip")
    command.set_defaults(run=import_command)


def import_command(arguments: argparse.Namespace) -> int:
    """Print settings, or write an adapter; what is not the same here goes to stderr."""
    given = {"--vectors": arguments.vectors, "--base-model": arguments.base_model, "--out": arguments.out}
    missing = [flag for flag, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise SettingsError(
            "An adapter needs more to be written", got=f"no {', '.join(missing)}", needed=", ".join(given)
        )
    imported = _imported(arguments)
    # Bounds of options are checked here: what is printed can be trained.
    RunSettings.parse({"template": imported.template, **imported.settings})
    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    if missing:
        values = {"template": imported.template, **imported.settings}
        print(yaml.safe_dump(values, allow_unicode=True, width=10_000, sort_keys=False), end="")
    else:
        _write_adapter(imported, arguments)
        print(arguments.out)
    return 0


def _imported(arguments: argparse.Namespace) -> Imported:
    from ptune_core.prompt.foreign.label_words import read_label_words
    from ptune_core.prompt.foreign.source import Wanted, import_template

    text, is_config = _template_text(arguments)
    labels, notes = None, list[str]()
    if arguments.verbalizer is not None:
        is_json = arguments.verbalizer.suffix.lower() in (".json", ".jsonl")
        content = _read(arguments.verbalizer)
        labels, notes = read_label_words(content, is_json=is_json, choice=arguments.verbalizer_choice)
    kind = None if arguments.target is None else TargetKind(arguments.target.upper())
    if arguments.front < 0 or arguments.choice < 0 or arguments.verbalizer_choice < 0:
        raise SettingsError("A number is below 0", needed="--front, --choice and --verbalizer-choice of at least 0")
    wanted = Wanted(arguments.task, kind, arguments.column, arguments.front, labels)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return import_template(text, wanted, is_config=is_config)


def _template_text(arguments: argparse.Namespace) -> tuple[str, bool]:
    """The template's text, and whether it is a configuration."""
    if (arguments.source is None) == (arguments.text is None):
        raise SettingsError("There must be one template", needed="a FILE, or --text")
    if arguments.text is not None:
        return str(arguments.text), False
    source: Path = arguments.source
    if source.is_dir() or source.suffix.lower() == ".zip":
        raise SettingsError(
            "An adapter is no template", got=str(source), needed="a template of NeMo or OpenPrompt",
            remedy="classify, chat and export take adapters of PEFT as they are. To give one labels, write a template "
            f"with --text '[P*8] {{text}}[ANSWER:label]' and name the adapter with --vectors {source}",
        )  # fmt: skip
    text = _read(source)
    if source.suffix.lower() in CONFIG_SUFFIXES:
        return text, True
    lines = text.splitlines()
    if arguments.choice >= len(lines):
        raise TemplateError(
            "The file has no such line", got=f"--choice {arguments.choice}", needed=f"below {len(lines)}"
        )
    return lines[arguments.choice].rstrip(), False


def _read(path: Path) -> str:
    """A text file, which is not opened if it could be a pickle."""
    refuse_pickle(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PTuneError(f"{path} is too large to be a template", needed=f"at most {MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PTuneError(f"{path} is no text", got=str(error), needed="UTF-8") from None


def _write_adapter(imported: Imported, arguments: argparse.Namespace) -> None:
    from ptune_core.adapters.export import export_adapter
    from ptune_core.adapters.vectors import adapter_of
    from ptune_core.model.base import load_base_model
    from ptune_core.prompt.template import parse_template

    out: Path = arguments.out
    is_zip = out.suffix.lower() == ".zip"
    if not is_zip and out.exists():
        raise SettingsError("The place of the adapter is taken", got=str(out), needed="a new folder, or FILE.zip")
    refuse_pickle(arguments.vectors)
    target = parse_template(imported.template).target.kind
    base = load_base_model(arguments.base_model, target=target, revision=arguments.revision, device="cpu")
    trained = adapter_of(imported.template, imported.settings.get("labels"), arguments.vectors, base)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        export_adapter(trained, scratch / "adapter" if is_zip else out, out if is_zip else scratch / "adapter.zip")
