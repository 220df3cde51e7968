"""The shape of the code: imports go down, Flax stays in its rooms, files stay short."""

import ast
import graphlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "fastsnn_jax"
MAX_LINES = 400

# A module or package that stands on no floor fails the test: give it one here, on purpose.
FLOORS = {
    1: "_typing _checks _files _rope_scaling registry config",
    2: "surrogate spikes codings encoding unroll windows neurons attention kernels jaxpr",
    3: "activity losses energy",
    4: "nn models",
    5: "conversion data train checkpoint record sharding scope recipes generation "
       "pretrained",
    6: "cli",
    7: "__init__",
}
FLOOR = {unit: floor for floor, units in FLOORS.items() for unit in units.split()}

# Where a foreign package may be imported at all, and which may be imported only when used.
ROOMS = {"flax": {"nn", "models"}, "jax.extend": {"jaxpr"}, "jax._src": set()}
HEAVY = ("orbax", "tensorflow_datasets", "tensorflow", "sklearn", "matplotlib", "tokenizers")

# Import names that are not the distribution's, and what TFDS needs to read images but leaves out.
DISTRIBUTION = {"orbax": "orbax-checkpoint", "sklearn": "scikit-learn", "PIL": "pillow",
                "yaml": "pyyaml"}
NEEDED_BY_TFDS = {"importlib-resources"}


def imports(source: str, module: str, *, executed: bool = False) -> Iterator[str]:
    """Yields the dotted names that the source of ``module`` (``a.b``, ``a.__init__``) imports.

    ``executed`` leaves out what does not run when the module is imported: the bodies of functions
    and of ``if TYPE_CHECKING``.
    """
    for node in _walk(ast.parse(source), executed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _walk(node: ast.AST, executed: bool) -> Iterator[ast.AST]:
    yield node
    if executed and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    children = node.orelse if executed and typing_only else ast.iter_child_nodes(node)
    for child in children:
        yield from _walk(child, executed)


def unit_of(name: str) -> str | None:
    """The floor entry a dotted name belongs to: ``fastsnn_jax.neurons.lif`` -> ``neurons``."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    # A name taken from the package itself, and no module, comes from its __init__.
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def inside(name: str, package: str) -> bool:
    """True where the dotted ``name`` is ``package`` or something in it."""
    return name == package or name.startswith(package + ".")


def floor_faults(source: str, module: str) -> list[str]:
    """What the source of a library module imports from a floor above its own."""
    unit = module.split(".")[1]
    if unit not in FLOOR:
        return [f"{module}: {unit} stands on no floor; add it to FLOORS"]
    return [
        f"{module} (floor {FLOOR[unit]}) imports {name} (floor {FLOOR[other]})"
        for name in imports(source, module)
        if (other := unit_of(name)) and FLOOR[other] > FLOOR[unit]
    ]


def room_faults(source: str, module: str) -> list[str]:
    """Flax outside nn/ and models/, jax.extend outside jaxpr.py, private jax anywhere."""
    unit = module.split(".")[1]
    return [
        f"{module} imports {name}; {package} is allowed only in {sorted(rooms) or 'no module'}"
        for name in imports(source, module)
        for package, rooms in ROOMS.items()
        if inside(name, package) and unit not in rooms
    ]


def heavy_faults(source: str, module: str) -> list[str]:
    """Heavy packages that importing the module would import."""
    return [
        f"{module} imports {name} on import; import it in the function that uses it"
        for name in imports(source, module, executed=True)
        if any(inside(name, package) for package in HEAVY)
    ]


def private_faults(source: str, module: str) -> list[str]:
    """Private names that an experiment takes from the library."""
    return [
        f"{module} imports the private {name}"
        for name in imports(source, module)
        if inside(name, PACKAGE)
        and any(part.startswith("_") and part != "__init__" for part in name.split("."))
    ]


def length_faults(source: str, module: str) -> list[str]:
    """A file above the line limit."""
    lines = len(source.splitlines())
    return [f"{module}: {lines} lines, the limit is {MAX_LINES}"] if lines > MAX_LINES else []


def sources(folder: str) -> dict[str, str]:
    """Dotted module name -> source of every Python file in a folder of the repository."""
    paths = sorted((REPOSITORY / folder).rglob("*.py"))
    return {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path.read_text("utf-8")
        for path in paths
    }


RULES = {
    "imports_go_down": (floor_faults, [PACKAGE]),
    "foreign_packages_stay_in_their_rooms": (room_faults, [PACKAGE]),
    "heavy_packages_are_imported_where_used": (heavy_faults, [PACKAGE]),
    "experiments_use_public_names": (private_faults, ["experiments"]),
    "files_are_short": (length_faults, [PACKAGE, "experiments", "tests"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule):
    faults_of, folders = RULES[rule]
    faults = [
        fault
        for folder in folders
        for module, source in sources(folder).items()
        for fault in faults_of(source, module)
    ]
    assert not faults, "\n".join(faults)


def test_no_two_units_of_the_library_need_each_other():
    graph = {unit: set() for unit in FLOOR}
    for module, source in sources(PACKAGE).items():
        units = {unit_of(name) for name in imports(source, module)} - {None}
        graph[unit_of(module)] |= units - {unit_of(module)}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_the_declared_dependencies_are_the_imported_ones():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {line.split(">=")[0] for line in project["dependencies"]} - NEEDED_BY_TFDS
    modules = {
        name.split(".")[0]
        for module, source in sources(PACKAGE).items()
        for name in imports(source, module)
    }
    foreign = modules - sys.stdlib_module_names - {PACKAGE}
    imported = {DISTRIBUTION.get(name, name.replace("_", "-")) for name in foreign}
    assert imported == declared


BAD = [
    (floor_faults, "fastsnn_jax.unroll", "from fastsnn_jax.train import fit"),
    (floor_faults, "fastsnn_jax.unroll", "from fastsnn_jax import train"),
    (floor_faults, "fastsnn_jax.unroll", "import fastsnn_jax.train as t"),
    (floor_faults, "fastsnn_jax.unroll", "import fastsnn_jax"),
    (floor_faults, "fastsnn_jax.unroll", "from fastsnn_jax import lif"),
    (floor_faults, "fastsnn_jax.unroll", "from . import activity"),
    (floor_faults, "fastsnn_jax.neurons.lif", "from ..activity import rates"),
    (floor_faults, "fastsnn_jax.neurons.__init__", "from ..models import mlp"),
    (floor_faults, "fastsnn_jax.neurons.lif", "def f():\n    from fastsnn_jax import models"),
    (floor_faults, "fastsnn_jax.novelty", ""),
    (room_faults, "fastsnn_jax.train.loop", "import flax.linen as nn"),
    (room_faults, "fastsnn_jax.train.loop", "from flax import linen"),
    (room_faults, "fastsnn_jax.energy.counts", "from jax.extend import core"),
    (room_faults, "fastsnn_jax.energy.counts", "from jax import extend"),
    (room_faults, "fastsnn_jax.jaxpr", "from jax._src import core"),
    (heavy_faults, "fastsnn_jax.scope.plots", "from matplotlib.figure import Figure"),
    (heavy_faults, "fastsnn_jax.scope.plots", "try:\n    import sklearn\nfinally:\n    f()"),
    (private_faults, "experiments.x", "from fastsnn_jax._checks import check"),
    (private_faults, "experiments.x", "from fastsnn_jax.recipes.mnist import _helper"),
    (length_faults, "tests.test_x", "x = 1\n" * (MAX_LINES + 1)),
]


@pytest.mark.parametrize("faults_of, module, source", BAD)
def test_a_rule_sees_what_breaks_it(faults_of, module, source):
    assert len(faults_of(source, module)) == 1


GOOD = [
    (floor_faults, "fastsnn_jax.neurons.lif", "from ..surrogate import arctan"),
    (floor_faults, "fastsnn_jax.neurons.__init__", "from .lif import lif"),
    (floor_faults, "fastsnn_jax.train.loop", "import optax\nfrom fastsnn_jax import activity"),
    (room_faults, "fastsnn_jax.nn.dense", "import flax.linen as nn"),
    (room_faults, "fastsnn_jax.jaxpr", "from jax.extend import core"),
    (room_faults, "fastsnn_jax.unroll", "import flaxen, jax.extended"),
    (heavy_faults, "fastsnn_jax.scope.plots", "def f():\n    import matplotlib.figure"),
    (heavy_faults, "fastsnn_jax.scope.plots", "if TYPE_CHECKING:\n    import matplotlib"),
    (private_faults, "experiments.x", "from fastsnn_jax.recipes import mnist\nimport _thread"),
    (length_faults, "tests.test_x", "x = 1\n" * MAX_LINES),
]


@pytest.mark.parametrize("faults_of, module, source", GOOD)
def test_a_rule_lets_pass_what_keeps_it(faults_of, module, source):
    assert faults_of(source, module) == []
