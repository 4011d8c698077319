"""`export`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ptune_core.commands.arguments import Commands, add_adapter, find_adapter


def declare(commands: Commands) -> None:
    """Add this command to the command line."""
    export = commands.add_parser("export", help="check an adapter and pack it as a zip with card and snippet")
    add_adapter(export)
    export.add_argument("--out", required=True, type=Path, metavar="FILE.zip", help="replaced if it exists")
    export.add_argument(
        "--format",
        choices=("peft", "prefix", "vocabulary", "sentence-transformers"),
        default="peft",
        help="peft: as trained (default); prefix: a prompt in front as keys and values; vocabulary: virtual tokens as "
        "added tokens, wherever they stand; sentence-transformers: a head on an encoder, with the base model's "
        "weights. The last three load the base model",
    )
    export.set_defaults(run=export_command)


def export_command(arguments: argparse.Namespace) -> int:
    """Check an adapter, PEFT's own included, and write it as a zip that says how it is used."""
    from ptune_core.adapters.export import export_adapter
    from ptune_core.adapters.format import load_adapter
    from ptune_core.adapters.prefix import export_prefix
    from ptune_core.adapters.sentence_form import export_sentence_transformers
    from ptune_core.adapters.vocabulary import export_vocabulary

    adapter = load_adapter(find_adapter(arguments.adapter))
    if arguments.format == "prefix":
        export_prefix(adapter, arguments.out)
    elif arguments.format == "vocabulary":
        export_vocabulary(adapter, arguments.out)
    elif arguments.format == "sentence-transformers":
        num_bytes = export_sentence_transformers(adapter, arguments.out)
        print(f"The base model's weights are in it: {num_bytes / 1e6:,.1f} MB.", file=sys.stderr)
    else:
        with tempfile.TemporaryDirectory() as folder:
            export_adapter(adapter, Path(folder) / "adapter", arguments.out)
    print(arguments.out)
    return 0
