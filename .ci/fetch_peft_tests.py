"""Fetch PEFT's own tests, which tests/peft_suite runs with our prompt encoder, into the virtual environment.

They come with PEFT's sdist, from the package index that pip uses, and are known by its hash. Nothing of the archive is
written but the Python files of its tests, and nothing of it enters the repository.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SDIST = Path(__file__).with_name("peft-sdist.txt")


def main() -> None:
    """Fetch them, unless this version's are there already."""
    [version] = re.findall(r"^peft==(\S+) --hash=", SDIST.read_text(encoding="utf-8"), re.MULTILINE)
    name = f"peft-{version}"
    target = Path(sys.prefix) / name
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=sys.prefix, prefix=".tmp-peft-") as scratch:
        options = ["--no-deps", "--no-binary", "peft", "--require-hashes", "--dest", scratch]
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", *options, "-r", SDIST], check=True)
        unpacked = Path(scratch) / name
        (unpacked / "tests").mkdir(parents=True)
        with tarfile.open(Path(scratch) / f"{name}.tar.gz") as archive:
            for member in archive:
                if member.isfile() and re.fullmatch(re.escape(name) + r"/tests/\w+\.py", member.name):
                    file = archive.extractfile(member)
                    assert file is not None
                    (Path(scratch) / member.name).write_bytes(file.read())
        os.rename(unpacked, target)


if __name__ == "__main__":
    main()
