"""Mutation testing: does a test fail when the code is wrong?

The mutants are mutmut's (``a + b`` to ``a - b``, an argument dropped or None, a number one larger, ``<`` to ``<=``, a
string changed, ...), of every function and method of the files below. Unlike mutmut alone, functions with a decorator
(``@torch.no_grad()``) are mutated too. What is run against them is ours, since importing torch takes longer than most
tests: one process imports everything, collects the tests and notes which of them run which lines; a fork of it per
mutant exchanges the code of one function and runs the tests that come by, the quickest first, until one fails.

    python -m reliability.mutants                     # all files
    python -m reliability.mutants selection metrics   # some
    python -m reliability.mutants --survivors         # what lived last time, once more
    python -m reliability.mutants --show metrics      # what lived, as differences

``mutants.json`` holds the figures and every mutant that lived; ``mutants_equivalent.json`` says of those that change
nothing why.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import importlib
import inspect
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from mertools._files import atomic_write

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.json")

# The files, and the tests that are theirs beside their doctests.
FILES = {
    "selection": ["test_selection", "test_properties_selection"],
    "search": ["test_selection", "test_properties_selection"],
    "au": ["test_au", "test_properties_loss"],
    "au_loss": ["test_au_loss", "test_properties_loss"],
    "au_checks": ["test_au_loss", "test_properties_loss"],
    "au_labels": ["test_au_labels", "test_properties_annotations"],
    "au_head": ["test_au_head"],
    "retention": ["test_retention", "test_properties_retention"],
    "retention_forms": ["test_retention", "test_properties_retention"],
    "metrics": ["test_metrics", "test_properties_metrics"],
}
SLOW = 4.0  # seconds: tests above it are left out, and those that see no mutant or compile for long
LEFT_OUT = ("memory_stays_within", "need_no_scikit_learn", "on_two_processes", "one_graph_for_every_length")
MEMORY = 6 << 30  # bytes beyond what the parent has


class Mutant(NamedTuple):
    """One change of one function."""

    function: str  # qualified name
    lines: range  # of the statement
    statement: str
    before: str
    after: str
    source: str  # of the changed function, with the head of its class
    kind: str  # "string" for string constants, else "code"
    key: str  # what names it in the record


class _Visitor(MutationVisitor):
    METADATA_DEPENDENCIES = (*MutationVisitor.METADATA_DEPENDENCIES, ParentNodeProvider)

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        return not (isinstance(node, cst.FunctionDef) and node.decorators) and super()._skip_node_and_children(node)


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a file, in its order."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text("utf-8")))
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()), None)
    wrapper.visit(visitor)
    parents, places = wrapper.resolve(ParentNodeProvider), wrapper.resolve(PositionProvider)
    found: list[Mutant] = []
    times: Counter[str] = Counter()
    for mutation in visitor.mutations:
        function, statement = mutation.contained_by_top_level_function, mutation.original_node
        if not isinstance(function, cst.FunctionDef):
            continue  # constants and type aliases of the module, as in mutmut
        compound = (cst.BaseCompoundStatement, cst.ExceptHandler)
        while not isinstance(statement, cst.BaseSmallStatement) and not isinstance(parents[statement], compound):
            statement = parents[statement]
        if isinstance(statement, cst.Parameters):
            statement = function
        changed = function.deep_replace(mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.FunctionDef)
        changed = changed.with_changes(decorators=[])
        owner = parents.get(parents[function])
        name = function.name.value
        if isinstance(owner, cst.ClassDef):
            name = f"{owner.name.value}.{name}"
            whole = cst.ClassDef(owner.name, cst.IndentedBlock([changed]))
        else:
            whole = changed
        place = places[statement]
        before, after = _text(mutation.original_node), _text(mutation.mutated_node)
        key = f"{name}: {before}  ->  {after}"
        times[key] += 1
        found.append(
            Mutant(
                function=name,
                lines=range(place.start.line, place.end.line + 1),
                statement=_text(statement),
                before=before,
                after=after,
                source=cst.Module([whole]).code,
                kind="string" if isinstance(mutation.original_node, cst.BaseString) else "code",
                key=key if times[key] == 1 else f"{key}  #{times[key]}",
            )
        )
    return found


def _text(node: cst.CSTNode) -> str:
    return " ".join(cst.Module([]).code_for_node(node).split())


def apply(mutant: Mutant, module: Any) -> None:
    """Exchange the code of the live function, wherever it has been imported to."""
    path = mutant.function.split(".")
    tree = ast.parse(mutant.source)
    inside = tree.body[0].body[0] if len(path) == 2 else tree.body[0]
    assert isinstance(inside, ast.FunctionDef)
    flags = __future__.annotations.compiler_flag
    code: Any = compile(tree, module.__file__, "exec", flags=flags, dont_inherit=True)
    for name in path:
        code = next(part for part in code.co_consts if inspect.iscode(part) and part.co_name == name)
    function: Any = module
    for name in path:
        function = inspect.getattr_static(function, name)
    if hasattr(function, "cache_clear"):
        function.cache_clear()
    function = getattr(function, "fget", None) or getattr(function, "__func__", None) or function
    function = inspect.unwrap(function)
    function.__code__ = code

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), module.__file__, "eval"), module.__dict__)

    arguments = inside.args
    function.__defaults__ = tuple(value(node) for node in arguments.defaults) or None
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    function.__kwdefaults__ = {argument.arg: value(node) for argument, node in pairs if node is not None} or None


class Runner:
    """A pytest plugin that runs the collected tests once per mutant, each time in a fork."""

    def __init__(self, name: str, chosen: list[Mutant]) -> None:
        self.name, self.chosen = name, chosen
        self.fates: dict[str, str] = {}
        self.failed = False

    def pytest_collection(self) -> None:
        """A failure is enough: no time goes into a smaller example."""
        from hypothesis import Phase, settings  # pytest wants to be there first

        settings.register_profile("mutants", settings.get_profile("quick"), phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the fork: has a test failed?"""
        self.failed = self.failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of one run of all tests."""
        module = importlib.import_module(f"mertools.{self.name}")
        path = Path(str(module.__file__))
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            with os.fdopen(writer, "w") as file:
                json.dump(self._covered(session.items, str(path)), file)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            covered = json.load(file)
        os.waitpid(child, 0)
        print(
            f"{self.name}: {len(session.items)} tests, {sum(c[0] for c in covered):.0f} s; {len(self.chosen)} mutants"
        )
        for done, mutant in enumerate(self.chosen, start=1):
            items = list(self._coming_by(mutant, session.items, covered))
            limit = 5 + 3 * sum(seconds for seconds, _ in items)
            fate = self._fate(mutant, module, [item for _, item in items], limit)
            self.fates[mutant.key] = fate
            if done % 50 == 0:
                lived = sum(f == "lived" for f in self.fates.values())
                print(f"  {done} of {len(self.chosen)}, {lived} live", flush=True)
        return True

    def _run(self, items: list[pytest.Item]) -> Iterator[pytest.Item]:
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            yield item

    def _covered(self, items: list[pytest.Item], path: str) -> list[tuple[float, list[int]]]:
        """Seconds and lines of each test, by a run of all."""
        lines: set[int] = set()

        def local(frame: Any, event: str, _: Any) -> Any:
            lines.add(frame.f_lineno)
            return local

        covered = []
        start = time.process_time()  # other work on the machine makes no test a slow one
        sys.settrace(lambda frame, *_: local(frame, "", None) if frame.f_code.co_filename == path else None)
        for item in self._run(items):
            covered.append((time.process_time() - start, sorted(lines)))
            if self.failed:
                raise RuntimeError(f"{item.nodeid} fails without any mutant")
            lines.clear()
            start = time.process_time()  # other work on the machine makes no test a slow one
        sys.settrace(None)
        return covered

    def _coming_by(
        self, mutant: Mutant, items: list[pytest.Item], covered: list[tuple[float, list[int]]]
    ) -> list[tuple[float, pytest.Item]]:
        chosen, graphs = [], []
        for item, (seconds, lines) in zip(items, covered, strict=True):
            if any(word in item.name for word in ("compile", "graph", "export")):
                graphs.append((seconds, item))
            elif seconds < SLOW and any(line in mutant.lines for line in lines):
                chosen.append((seconds, item))
        # What a compiler traces is read, not run: its slow tests are for the lines that say so, or that no other meets.
        compiled = not chosen or any(word in mutant.statement for word in ("is_compiling", "_exporting"))
        return sorted(chosen, key=lambda pair: pair[0]) + sorted(graphs, key=lambda pair: pair[0]) * compiled

    def _fate(self, mutant: Mutant, module: Any, items: list[pytest.Item], limit: float) -> str:
        if not items:
            return "lived"
        child = os.fork()
        if not child:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            os.setsid()
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
            status = 1
            items[0].config.pluginmanager.unregister(name="terminalreporter")
            try:
                apply(mutant, module)
                for _ in self._run(items):
                    if self.failed:
                        break
                else:
                    status = 0
            finally:
                os._exit(status)
        stop = time.monotonic() + 6 * limit
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "lived" if status == 0 else "timed out" if os.WIFSIGNALED(status) else "killed"
            if time.monotonic() > stop:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timed out"
            time.sleep(0.002)


def run(name: str, chosen: list[Mutant], *, own: bool) -> dict[str, str]:
    """The fate of each mutant of a file by its key."""
    runner = Runner(name, chosen)
    tests = [ROOT / "tests" / f"{test}.py" for test in FILES[name] if not (own and "properties" in test)]
    arguments = [*map(str, tests), str(ROOT / "mertools" / f"{name}.py"), "--rootdir", str(ROOT)]
    arguments += ["-k", " and ".join(f"not {test}" for test in LEFT_OUT)]
    pytest.main([*arguments, "-q", "-p", "no:cacheprovider", "--tb=native"], plugins=[runner])
    if len(runner.fates) != len(chosen):
        raise RuntimeError(f"the tests of {name} did not run: see above")
    return runner.fates


def entry(found: list[Mutant], fates: dict[str, str]) -> dict[str, Any]:
    """What the record says of a file: numbers, with strings apart, and each mutant that no test noticed."""
    tried = [m for m in found if m.key in fates]

    def numbers(some: list[Mutant]) -> dict[str, int]:
        return {"mutants": len(some), "killed": sum(fates[m.key] != "lived" for m in some)}

    return {
        "all": len(found),
        **numbers(tried),
        "code": numbers([m for m in tried if m.kind == "code"]),
        "strings": numbers([m for m in tried if m.kind == "string"]),
        "lived": [{"key": m.key, "line": m.lines[0], "kind": m.kind} for m in tried if fates[m.key] == "lived"],
        "tried": None if len(tried) == len(found) else [i for i, m in enumerate(found) if m.key in fates],
    }


def known(found: list[Mutant], before: dict[str, Any]) -> dict[str, str]:
    """The fates that an entry of the record tells."""
    lived = {mutant["key"] for mutant in before["lived"]}
    tried = found if before["tried"] is None else [found[i] for i in before["tried"]]
    return {m.key: "lived" if m.key in lived else "killed" for m in tried}


def main() -> None:
    """Run, and write the record after every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(FILES)}; default all")
    parser.add_argument("--survivors", action="store_true", help="only what lived the last time")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every Nth mutant, from the Kth on (default: 1/1)")
    parser.add_argument("--own", action="store_true", help="without the properties: quicker, and kills a little less")
    parser.add_argument("--show", action="store_true", help="list what lived the last time, and run nothing")
    parser.add_argument("--record", type=Path, default=RECORD, help="the record to write (default: beside this script)")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    for name in options.files or FILES:
        if name not in FILES:
            parser.error(f"FILE must be among {', '.join(FILES)}, got {name!r}")
        record = json.loads(options.record.read_text("utf-8")) if options.record.exists() else {"files": {}}
        before = record["files"].get(name, {"lived": [], "tried": []})
        lived = {mutant["key"] for mutant in before["lived"]}
        if options.show:
            for mutant in before["lived"]:
                print(f"{name}.py:{mutant['line']}  {mutant['key']}")
            continue
        found = mutants(ROOT / "mertools" / f"{name}.py")
        chosen = found[part - 1 :: parts]
        if options.survivors:
            chosen = [m for m in found if m.key in lived]
        fates = run(name, chosen, own=options.own)
        if parts > 1 or options.survivors:  # they add to what is known; a whole run begins anew
            fates = known(found, before) | fates
        record["tool"] = f"mutmut {version('mutmut')}"
        record["files"][name] = entry(found, fates)
        atomic_write(options.record, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
        print(f"{name}: {record['files'][name]['killed']} of {len(fates)} killed", flush=True)


if __name__ == "__main__":
    main()
