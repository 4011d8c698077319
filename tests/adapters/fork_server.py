"""A process that has imported what adapters are used with, and nothing of PTune: each order is a fork of it.

Importing torch, transformers and peft takes seconds; a fork has them at once, and is otherwise as new. Orders are lines
of JSON on standard input: ``code``, ``cwd``, ``path`` (put before sys.path) and ``out``, the folder for the files
`out` and `err`. The answer to each is a line with the exit code.
"""

import json
import os
import sys
import warnings
from importlib import import_module

for library in ("torch", "transformers", "peft"):
    import_module(library)


def main() -> None:
    """Answer orders; a fork returns from here, or raises, and so ends as any interpreter does."""
    warnings.simplefilter("ignore")
    assert "ptune_core" not in sys.modules
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(os.path.join(order["out"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.chdir(order["cwd"])
            sys.path[:0] = [order["cwd"], *order["path"]]
            exec(compile(order["code"], "<order>", "exec"), {"__name__": "__main__"})
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
