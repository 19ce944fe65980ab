"""The layering of docs/architecture.md: a package imports only from packages below it, without cycles.

The oracle is the table here, read from the source with ``ast``, so imports inside functions count as well.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Packages from the ground up; one may import from itself and from those before it in the same list.
FLOORS = [
    "mixgan.ops",
    "mixgan.engine",
    "mixgan.data",
    "mixgan.mixing",
    "mixgan.report",
    "mixgan.evaluate",
    "mixgan.gan",
]
#: Who may do more than the floors say: the console command calls every command, `mixgan` re-exports public names.
ABOVE_ALL = {"mixgan.cli", "mixgan"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for top in ("mixgan", "classify") for path in sorted((ROOT / top).rglob("*.py"))}


def imports(module, *, top_level=False):
    """Modules of this repository that a module imports, with those inside functions unless ``top_level``."""
    tree = ast.parse(FILES[module].read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module):
    return ".".join(module.split(".")[:2])


def allowed(source, target):
    """Whether the module ``source`` may import the module ``target``."""
    if source in ABOVE_ALL or target == "mixgan":  # the package itself: __version__
        return True
    if source.startswith("classify"):
        return target.startswith("classify") or room(target) in FLOORS
    return room(target) in FLOORS and FLOORS.index(room(target)) <= FLOORS.index(room(source))


@pytest.mark.parametrize("module", FILES)
def test_imports_come_from_lower_floors(module):
    wrong = [
        name for name in imports(module) if name.split(".")[0] in ("mixgan", "classify") and not allowed(module, name)
    ]
    assert not wrong


def test_only_the_ops_import_kornia():
    """Recipes and examples as well; benchmarks compare with it."""
    sources = [path for top in ("mixgan", "classify", "recipes", "examples") for path in (ROOT / top).rglob("*.py")]
    users = [path for path in sources if any(name.split(".")[0] == "kornia" for name in imported_names(path))]
    assert users
    assert {path.parent.relative_to(ROOT).as_posix() for path in users} == {"mixgan/ops"}


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_module_imports_itself_through_others():
    graph = {module: {name for name in imports(module, top_level=True) if name in FILES} for module in FILES}
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in graph[module]:
                visit(name, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("module", FILES)
def test_a_file_is_a_chapter(module):
    assert len(FILES[module].read_text().splitlines()) <= 500
