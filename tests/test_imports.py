"""Imports point one way, as docs/architecture.md says, and no modules import each other in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "addons"
_CORE = {"policy", "wire"}
_TRAFFIC = _CORE | {"config", "blocklog", "traffic", "accounts"}
_MITM = _TRAFFIC | {"gate", "block_page", "runtime", "mitm"}
BELOW = {
    "policy": set[str](),
    "wire": set[str](),
    "config": _CORE,
    "blocklog": _CORE,
    "accounts": _CORE | {"config", "blocklog"},
    "traffic": _CORE | {"config", "blocklog"},
    "gate": _TRAFFIC,
    "block_page": _TRAFFIC,
    "runtime": _TRAFFIC,
    "mitm": _MITM,
    "gateway": _CORE | {"config"},
    "service": _MITM | {"gateway"},
    "analytics": _CORE | {"blocklog"},
    "webui": _CORE | {"blocklog", "analytics", "accounts", "runtime"},
    "evasion": set[str](),
    "cli": _MITM | {"gateway", "service", "analytics", "webui", "evasion"},
    "__main__": {"cli"},
}
"""What the modules of each package may import beside their own package."""


def imports(source: str) -> Iterator[str]:
    """The modules that a source imports, also inside functions and for type checkers alone."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def graph() -> dict[str, set[str]]:
    """Each module of tokgate with those that it imports."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("tokgate/**/*.py")}
    return {name: modules.keys() & set(imports(path.read_text("utf-8"))) - {name} for name, path in modules.items()}


def package(module: str) -> str:
    return module.split(".")[1]


def test_packages_import_downwards() -> None:
    """No module imports from a package above its own, or beside it."""
    arrows = [(module, imported) for module, found in graph().items() for imported in found]
    assert [
        (module, imported)
        for module, imported in arrows
        if package(module) != package(imported) and package(imported) not in BELOW[package(module)]
    ] == []


def part(module: str) -> str:
    """The module's part of its package: the folder in it, or the module itself."""
    return ".".join(module.split(".")[:3])


def test_parts_of_a_package_import_one_way() -> None:
    """The folders and modules of each package can be put in an order in which each imports earlier ones."""
    parts: dict[str, set[str]] = {}
    for module, found in graph().items():
        if module.count(".") > 1:
            inside = {part(imported) for imported in found if package(imported) == package(module)}
            parts.setdefault(part(module), set()).update(inside - {part(module)})
    order = list(TopologicalSorter(parts).static_order())
    log = [f"tokgate.blocklog.{name}" for name in ("records", "read", "integrity", "write")]
    assert sorted(log, key=order.index) == log


def test_no_circles() -> None:
    """Modules can be put in an order in which each imports earlier ones only."""
    order = list(TopologicalSorter(graph()).static_order())
    assert order.index("tokgate.policy.decide") < order.index("tokgate.gate.gate")


def test_a_circle_is_found() -> None:
    """An import inside a function or for type checkers closes a circle as any does: the tests above can fail."""
    lazy = "def later():\n    from tokgate.a import thing\n"
    checked = "if TYPE_CHECKING:\n    from tokgate.a import thing\n"
    assert set(imports(lazy)) == set(imports(checked)) == {"tokgate.a", "tokgate.a.thing"}
    with pytest.raises(CycleError):
        list(TopologicalSorter({"tokgate.a": {"tokgate.b"}, "tokgate.b": {"tokgate.a"}}).static_order())
