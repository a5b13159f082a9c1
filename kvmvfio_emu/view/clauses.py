"""Every clause by which the emulated kernel says no, found in its own source: the errno, the reason, where it stands.

A clause is a ``KernelError(errno.X, reason)``. Which of them an ioctl can meet follows from who calls whom, as far as
names, annotations and what constructors assign tell; what only runs decide is left out. So nothing is listed that is
not there, and the reasons of a trace are found again word by word.
"""

from __future__ import annotations

import ast
import errno as _errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

#: The doors have the descriptors and the memory of the caller; they are read, not imported.
_ROOTS = ("kvmvfio_emu.kernel", "kvmvfio_emu.doors")
_DEEPEST = 12
#: What gives things back refuses nobody.
_LAST = ("put", "release", "destroy", "stop", "disable", "close", "cleanup")
_TELLING = 3  #: a Protocol of fewer methods is satisfied by too much


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to be refused. ``errno`` is empty where the profile chooses it."""

    errno: str
    reason: str  #: with ``...`` for what is filled in
    pattern: re.Pattern[str] = field(compare=False, repr=False)
    module: str  #: kvmvfio_emu.kernel.kvm.irqfd
    function: str  #: Irqfds.assign
    line: int
    models: str  #: the first line of the module's docstring: what of Linux it is

    @property
    def file(self) -> str:
        """kvmvfio_emu/kernel/kvm/irqfd.py"""
        return self.module.replace(".", "/") + ".py"


@dataclass(slots=True)
class _Function:
    module: str
    owner: str  #: its class, or empty
    name: str
    node: ast.FunctionDef
    clauses: list[Clause] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.owner, self.name


class Source:
    """The emulated kernel's source, read once."""

    def __init__(self) -> None:
        self.clauses: list[Clause] = []
        self._functions: dict[tuple[str, str, str], _Function] = {}
        self._classes: dict[str, list[tuple[str, list[str]]]] = {}  # name -> (module, names of its bases)
        self._attributes: dict[tuple[str, str], set[str]] = {}  # (class, attribute) -> classes that it can be of
        self._values: dict[tuple[str, str], list[tuple[_Function, ast.expr]]] = {}  # the same, what is assigned
        self._imports: dict[str, dict[str, str]] = {}  # module -> local name -> what it was imported as
        self._methods_of: dict[str, set[str]] = {}
        self._calls: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
        self._derived: dict[str, list[tuple[str, str]]] = {}  # what `subclasses` found
        for root in _ROOTS:
            for module, text in _modules(files(root), root):
                self._read(module, ast.parse(text))

    def of(self, module: str, owner: str, name: str) -> list[Clause]:
        """The clauses that a call of this function can meet, nearest first."""
        found: dict[Clause, None] = {}
        seen: set[tuple[str, str, str]] = set()
        front = [(module, owner, name)]
        for _ in range(_DEEPEST):
            functions = [self._functions[key] for key in front if key not in seen and key in self._functions]
            seen.update(front)
            found.update((clause, None) for function in functions for clause in function.clauses)
            called = (key for function in functions for key in self._calls_of(function))
            front = [key for key in called if key[2] not in _LAST]
        return list(found)

    def matching(self, errno: str, reason: str) -> list[Clause]:
        """The clauses that a reason of a trace can be of, the most literal first."""
        number = getattr(_errno, errno, None)  # of which some have two names
        fitting = [c for c in self.clauses if not c.errno or getattr(_errno, c.errno) == number]
        fitting = [clause for clause in fitting if clause.pattern.fullmatch(reason)]
        literal = {clause: len(clause.reason.replace("...", "")) for clause in fitting}
        best = max(literal.values(), default=0)
        return [clause for clause in fitting if literal[clause] == best and best]

    def subclasses(self, name: str) -> list[tuple[str, str]]:
        """(module, class) of a class and of all that derive from it, by name."""
        if name not in self._derived:
            self._derived[name] = [
                (module, derived)
                for derived, places in self._classes.items()
                for module, bases in places
                if derived == name or name in self._ancestors(bases) or self._satisfies(derived, name)
            ]
        return self._derived[name]

    def _satisfies(self, derived: str, protocol: str) -> bool:
        """Whether a class has what a Protocol asks for."""
        if not any("Protocol" in bases for _, bases in self._classes.get(protocol, ())):
            return False
        wanted = self._methods_of.get(protocol, set())
        has = set().union(*(self._methods_of.get(name, set()) for name in self._ancestors([derived])))
        return len(wanted) >= _TELLING and wanted <= has

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, module: str, tree: ast.Module) -> None:
        models = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
        self._imports[module] = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self._function(module, "", node, models)
            elif isinstance(node, ast.ClassDef):
                bases = [_last(base) for base in node.bases]
                self._classes.setdefault(node.name, []).append((module, bases))
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        self._function(module, node.name, member, models)
                    elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                        self._annotated(node.name, member.target.id, member.annotation)

    def _function(self, module: str, owner: str, node: ast.FunctionDef, models: str) -> None:
        function = _Function(module, owner, node.name, node)
        self._functions.setdefault(function.key, function)
        if owner and not node.name.startswith("_"):
            self._methods_of.setdefault(owner, set()).add(node.name)
        qualified = f"{owner}.{node.name}" if owner else node.name
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and _last(inner.func) == "KernelError" and len(inner.args) == 2:
                reason, pattern = _template(inner.args[1])
                errno = inner.args[0].attr if isinstance(inner.args[0], ast.Attribute) else ""
                errno = errno if re.fullmatch(r"E[A-Z0-9]+", errno) else ""
                clause = Clause(errno, reason, pattern, module, qualified, inner.lineno, models)
                function.clauses.append(clause)
                self.clauses.append(clause)
            elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Attribute):
                self._annotated(owner, inner.target.attr, inner.annotation)
            elif isinstance(inner, ast.Assign):
                self._assigned(function, inner)
        if node.returns is not None and any(_last(mark) == "property" for mark in node.decorator_list):
            self._annotated(owner, node.name, node.returns)

    def _assigned(self, function: _Function, node: ast.Assign) -> None:
        """``self.x = ...``: what that is, is asked when it matters."""
        for target in node.targets:
            if isinstance(target, ast.Attribute):
                self._values.setdefault((function.owner, target.attr), []).append((function, node.value))

    def _annotated(self, owner: str, attribute: str, annotation: ast.expr) -> None:
        self._attributes.setdefault((owner, attribute), set()).update(_names(annotation))

    # -- who calls whom ---------------------------------------------------------------------------------------------

    def _calls_of(self, function: _Function) -> list[tuple[str, str, str]]:
        if function.key not in self._calls:
            self._calls[function.key] = list(dict.fromkeys(self._called(function)))
        return self._calls[function.key]

    def _called(self, function: _Function) -> Iterator[tuple[str, str, str]]:
        annotated = _parameters(function.node)
        for node in ast.walk(function.node):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                annotated.setdefault(node.targets[0].id, self._types(function, node.value, annotated))
        for node in ast.walk(function.node):
            if isinstance(node, ast.Call):
                yield from self._targets(function, node.func, annotated)

    def _targets(
        self, function: _Function, called: ast.expr, annotated: dict[str, set[str]]
    ) -> Iterator[tuple[str, str, str]]:
        if isinstance(called, ast.Name):
            yield from self._global(function.module, called.id)
        elif isinstance(called, ast.Attribute):
            if isinstance(called.value, ast.Name) and called.value.id in self._imports[function.module]:
                module = self._imports[function.module][called.value.id]  # a module's function
                yield module, "", called.attr
                yield from self._global(module, called.attr)
            for name in self._types(function, called.value, annotated):
                yield from self._methods(name, called.attr)

    def _types(self, function: _Function, value: ast.expr, annotated: dict[str, set[str]], depth: int = 0) -> set[str]:
        """The classes that an expression can be of, as far as names tell."""
        found: set[str] = set()
        if isinstance(value, ast.Name):
            found = {function.owner} if value.id == "self" else annotated.get(value.id, set())
        elif isinstance(value, ast.Call):
            name = _last(value.func)  # a constructor, or what has a class: type[...]
            found = {name} if name in self._classes else self._types(function, value.func, annotated, depth + 1)
        elif isinstance(value, ast.Attribute) and depth < _DEEPEST:
            owners = self._types(function, value.value, annotated, depth + 1)
            related = {name for owner in owners for _, name in self.subclasses(owner)} | self._ancestors(owners)
            for owner in related:
                found |= self._attributes.get((owner, value.attr), set())
                for where, assigned in self._values.get((owner, value.attr), ()):
                    found |= self._types(where, assigned, _parameters(where.node), depth + 1)
        return {name for name in found if name in self._classes}

    def _global(self, module: str, name: str) -> Iterator[tuple[str, str, str]]:
        """A function or a class's constructor that is called by its name in ``module``."""
        place, _, original = self._imports.get(module, {}).get(name, f"{module}.{name}").rpartition(".")
        yield place, "", original
        if original in self._classes:
            yield from self._methods(original, "__init__")

    def _methods(self, name: str, method: str) -> Iterator[tuple[str, str, str]]:
        """A method of a class, of what it inherits from, and of what overrides it."""
        for module, derived in self.subclasses(name):
            yield module, derived, method
        for ancestor in self._ancestors([name]):
            for module, _ in self._classes.get(ancestor, ()):
                yield module, ancestor, method

    def _ancestors(self, bases: Iterable[str]) -> set[str]:
        found: set[str] = set()
        front = set(bases)
        while front - found:
            found |= front
            front = {base for name in front for _, names in self._classes.get(name, ()) for base in names}
        return found


@cache
def source() -> Source:
    """The emulated kernel's."""
    return Source()


def _modules(place: Traversable, name: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("_"):
            yield from _modules(entry, f"{name}.{entry.name}")
        elif entry.name.endswith(".py"):
            stem = entry.name.removesuffix(".py")
            yield (name if stem == "__init__" else f"{name}.{stem}"), entry.read_text("utf-8")


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _parameters(node: ast.FunctionDef) -> dict[str, set[str]]:
    """The classes that a function's parameters are annotated with."""
    every = (*node.args.args, *node.args.kwonlyargs)
    return {one.arg: _names(one.annotation) for one in every if one.annotation is not None}


def _names(annotation: ast.expr) -> set[str]:
    """The names in an annotation, which may be a string; none of a collection, whose elements they are."""
    if isinstance(annotation, ast.Subscript):
        return _names(annotation.slice) if _last(annotation.value) == "type" else set()
    found = {_last(node) for node in ast.walk(annotation) if isinstance(node, (ast.Name, ast.Attribute))}
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\w+", node.value))
    return found - {"", "None", "Any", "int", "str", "bool", "dict", "list", "tuple"}


def _template(node: ast.expr) -> tuple[str, re.Pattern[str]]:
    """A reason with dots for what is filled in, and what it looks like filled in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    shown, pattern = "", ""
    for part in parts:
        if isinstance(part, ast.Constant):
            shown += str(part.value)
            pattern += re.escape(str(part.value))
        else:
            shown += "..."
            pattern += ".*"
    return shown, re.compile(pattern, re.DOTALL)
