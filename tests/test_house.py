"""The rules of the house: what may import what, and how large things may grow."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ptune_core"
TOP_LEVEL = {
    "app.py", "ptune_core", "tests", "benchmarks", "docs", "requirements.txt", "requirements-dev.txt", "README.md",
    "Spacefile", "pyproject.toml", "LICENSE", "CHANGELOG.md",
}  # fmt: skip

# Part -> the parts it may import. `demo` holds paths only; some are free for all.
FREE_FOR_ALL = {"errors", "files", "plain_json", "steady"}
BELOW: dict[str, set[str]] = {"demo": set(), "prompt": set(), "deploy": set()}
BELOW["data"] = BELOW["prompt"] | {"prompt", "demo"}
BELOW["model"] = BELOW["data"] | {"data"}
BELOW["training"] = BELOW["model"] | {"model"}
BELOW["adapters"] = BELOW["model"] | {"model"}
BELOW["inference"] = BELOW["adapters"] | {"adapters"}
BELOW["runs"] = BELOW["training"] | {"training", "adapters"}
BELOW["app"] = BELOW["runs"] | {"runs", "inference"}
BELOW["ui"] = BELOW["app"] | {"app"}
BELOW["recipes"] = BELOW["runs"] | {"runs", "inference"}
BELOW["commands"] = BELOW["recipes"] | {"recipes", "app"}
BELOW["__main__"] = BELOW["commands"] | {"deploy", "commands"}

# Library -> where it may be imported, as path prefixes relative to the repository.
ONLY_IN = {
    "gradio": ("app.py", "ptune_core/ui/", "tests/"),
    "peft": ("tests/", "benchmarks/"),
    "transformers": (
        "ptune_core/model/base.py",
        "ptune_core/model/base_kind.py",  # its configurations and Auto classes
        "ptune_core/model/recomputing.py",  # its layers
        "ptune_core/model/source.py",  # what it says while it loads
        "ptune_core/model/outline.py",  # its tokenizers and configurations
        "ptune_core/model/quantize.py",
        "ptune_core/model/past.py",  # its cache of keys and values
        "ptune_core/model/targets.py",  # its layers
        "ptune_core/model/generation.py",  # what its encoders hand to its decoders
        "ptune_core/model/module_adapter.py",
        "ptune_core/model/kernels.py",  # and what they are made of
        "ptune_core/data/batching.py",  # text is tokenised here
        "ptune_core/adapters/ptune_loader.py",  # goes into an adapter's zip and stands alone there
        "ptune_core/demo/build/",  # makes the embedded base model
        "tests/",
        "benchmarks/",
    ),
}
NO_TORCH = (
    "app.py",
    "ptune_core/app/",
    "ptune_core/ui/",
    "ptune_core/__main__.py",
    "ptune_core/commands/",
    "ptune_core/deploy.py",
)


def sources(*places: str) -> list[Path]:
    found = [path for place in places for path in [ROOT / place, *(ROOT / place).rglob("*.py")] if path.is_file()]
    return found


CODE = sources("app.py", "ptune_core", "tests", "benchmarks")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports when it runs, at its top or inside a function."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are absolute"
            yield node.module or ""
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)


def test_imports_point_one_way() -> None:
    wrong = []
    for path in sources("ptune_core"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imports(path):
            other = module.removeprefix("ptune_core.").split(".")[0]
            known = {part, *FREE_FOR_ALL, *BELOW.get(part, ())}
            if module.startswith("ptune_core.") and part != "__init__" and other not in known:
                wrong.append(f"{name_of(path)}: {part} must not know {module}")
    assert wrong == []


def test_libraries_stay_where_they_belong() -> None:
    wrong = []
    for path in CODE:
        for module in imports(path):
            library = module.split(".")[0]
            allowed = name_of(path).startswith(ONLY_IN.get(library, ""))
            if not allowed or (library == "torch" and name_of(path).startswith(NO_TORCH)):
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_the_page_loads_no_torch() -> None:
    """Not even through something it imports: the page must be up in seconds and survive a crash in training."""
    assert loaded(sources("app.py", "ptune_core/ui")).isdisjoint({"torch"})


def test_what_stands_below_the_page_loads_no_gradio_and_no_torch() -> None:
    """The command line and programs use it too."""
    assert loaded(sources("ptune_core/app")).isdisjoint({"gradio", "torch"})


def loaded(paths: list[Path]) -> set[str]:
    """What is loaded once these are imported in a process of their own."""
    modules = [name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_sizes() -> None:
    wrong = [name_of(path) for path in CODE if path.read_text(encoding="utf-8").count("\n") > 400]
    for path in CODE:
        for function in functions(path):
            longest = 100 if name_of(path) == "ptune_core/training/loop.py" else 80
            if length(function) > longest:
                wrong.append(f"{name_of(path)}: {function.name} has {length(function)} lines")
            given = [argument for argument in arguments(function) if argument not in ("self", "cls")]
            if len(given) > 6 and not name_of(path).startswith("tests/"):
                wrong.append(f"{name_of(path)}: {function.name} has {len(given)} parameters")
    assert wrong == []


MOST_BY_ORDER = 8


def test_nothing_long_is_matched_by_order() -> None:
    """Neither arguments nor what a handler gives to the page: one that is inserted makes all after it wrong."""
    wrong = []
    for path in sources("app.py", "ptune_core"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and len(node.args) > MOST_BY_ORDER:
                wrong.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)} takes {len(node.args)} in order")
            if isinstance(node, ast.Return) and isinstance(node.value, ast.List | ast.Tuple):
                gives_to_page = name_of(path).startswith("ptune_core/ui/") and "/api/" not in name_of(path)
                if len(node.value.elts) > MOST_BY_ORDER and gives_to_page:
                    wrong.append(f"{name_of(path)}:{node.lineno}: returns {len(node.value.elts)} in order")
    assert wrong == []


def test_nearly_all_functions_fit_on_a_screen() -> None:
    lengths = [length(function) for path in CODE for function in functions(path)]
    assert statistics.quantiles(lengths, n=20)[-1] <= 50


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    lists = function.args.posonlyargs, function.args.args, function.args.kwonlyargs
    return [argument.arg for arguments in lists for argument in arguments]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_nothing_else_at_the_top() -> None:
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = git.stdout.splitlines()
    top = {path.split("/")[0] for path in listed}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL
    assert not [path for path in listed if path.endswith("utils.py")]
