"""The house stands: imports run downward, stages do not know each other, modules do not import in circles."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import mobileclip2_lite

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mobileclip2_lite"
LAYERS = (
    ("work",),
    ("recipes",),
    ("views",),
    ("shards",),
    ("emoji_world", "models"),
    ("pairs", "filtering", "captioning", "reinforcement", "training", "evaluation", "deployment"),
    ("reports",),
    ("costs", "studies"),
    ("pipeline", "notebook"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> list[tuple[int, str, str]]:
    """(line, module, name) of every import of our own in a file, also in functions and under TYPE_CHECKING."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            found += [(node.lineno, node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
    return [item for item in found if item[1].split(".")[0] == "mobileclip2_lite"]


def test_imports_run_downward_and_stages_do_not_know_each_other():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for line, module, name in imports(path):
            there = [*module.split(".")[1:], name][0]
            if there in ("", "__version__"):  # the package itself, for its version
                continue
            assert there in FLOOR, f"{path.relative_to(PACKAGE)}:{line}: import {name} from the module that defines it"
            if here != "__init__" and here != there and FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {here} must not import {there}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_in_a_circle():
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        wanted = {f"{there}.{name}" if f"{there}.{name}" in modules else there for _, there, name in imports(path)}
        graph[module] = wanted & set(modules) - {module}
    del graph["mobileclip2_lite"]  # fetches public names when they are asked for
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) > 80


def test_tables_and_clocks_are_made_in_one_place():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree, where = ast.parse(path.read_text("utf-8")), path.relative_to(PACKAGE).as_posix()
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in statements else ""
            if where != "work/tables.py" and isinstance(text, str) and "|---" in text:
                wrong.append(f"{where}:{node.lineno}: `work.tables.markdown_table` writes tables")
            if where != "work/stopwatch.py" and isinstance(node, ast.Attribute) and node.attr == "perf_counter":
                wrong.append(f"{where}:{node.lineno}: `work.stopwatch` has the clock")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_on_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert rooms - {"__init__"} == set(FLOOR)


def test_public_names_exist_and_hide_no_submodule():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()} - {"recipes"}
    assert not rooms & set(mobileclip2_lite.__all__)
    for name in mobileclip2_lite.__all__:
        assert getattr(mobileclip2_lite, name) is not None
    assert {"make_pairs", "filter_pairs", "caption", "reinforce", "train", "evaluate", "run"} <= set(
        dir(mobileclip2_lite)
    )


def test_the_public_interface_is_this_list():
    assert set(mobileclip2_lite.__all__) == {
        "__version__", "recipes", "create_model", "list_models", "save_model", "LoadedModel", "load_teachers",
        "load_captioner", "make_pairs", "filter_pairs", "caption", "reinforce", "train", "evaluate", "run", "Pair",
        "Sample", "read_samples", "write_shard", "inspect", "join", "shrink", "ReinforcedDataset", "View", "draw",
        "replay", "PairLoss", "export_onnx", "load_exported", "search_folder",
    }  # fmt: skip
