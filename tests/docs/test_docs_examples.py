"""Every example of README.md and docs/ runs and prints what the page says.

A ``python`` block runs in a namespace that all blocks of its page share; an ``output`` block after it is what it
prints. A page that defines tests runs under pytest. A ``console`` block shows ``kvmvfio-emu`` commands and their
output, in which ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; ``line`` is that of its first line in the page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that name a language."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in FENCE.finditer(text)]


def pages_with(language: str, *, tests: bool = False) -> list[object]:
    """The pages with such blocks, with or without tests of their own, as pytest parameters."""
    found = []
    for page in PAGES:
        texts = [block.text for block in blocks(page) if block.language == language]
        if texts and tests == any(re.search(r"^def test_", text, re.MULTILINE) for text in texts):
            found.append(pytest.param(page, id=str(page.relative_to(ROOT))))
    return found


def matches(wanted: str, got: str) -> bool:
    """Whether they are the same, with ``...`` for anything and without regard to space at line ends."""
    strip = [re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE) for text in (wanted, got)]
    return doctest.OutputChecker().check_output(*strip, doctest.ELLIPSIS)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__example__"}
    printed = ""
    for block in blocks(page):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed = out.getvalue()
        elif block.language == "output":
            assert matches(block.text, printed), f"{page}:{block.line} says\n{block.text}\nbut it prints\n{printed}"


@pytest.mark.parametrize("page", pages_with("python", tests=True))
def test_a_page_of_tests_passes_under_pytest(page, tmp_path):
    module = tmp_path / "test_page.py"
    module.write_text("\n".join(block.text for block in blocks(page) if block.language == "python"))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", module.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", pages_with("console"))
def test_console_blocks_print_what_the_page_says(page, tmp_path):
    for block in blocks(page):
        if block.language != "console":
            continue
        commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        assert commands, f"{page}:{block.line}: no command"
        for command in commands:
            line, _, wanted = command.partition("\n")
            program, *arguments = shlex.split(line)
            assert program == "kvmvfio-emu", f"{page}:{block.line}: cannot run {program}"
            start = "import sys; from kvmvfio_emu.cli.main import main; sys.exit(main())"
            run = subprocess.run(
                [sys.executable, "-c", start, *arguments],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.returncode == 0, run.stderr
            assert matches(wanted, run.stdout), f"{page}:{block.line}: {line} prints\n{run.stdout}"


def test_there_are_examples_of_each_sort():
    assert len(pages_with("python")) >= 5
    assert pages_with("python", tests=True)
    assert len(pages_with("console")) >= 2


def test_every_event_of_the_model_is_in_the_reference():
    listed = re.findall(r"`(\w+)`", (ROOT / "docs/reference/events.md").read_text(encoding="utf-8"))
    named = re.compile(
        r"""(?:event|begin|show)\(\s*"(\w+)"|step\((?:\(.*?\)|[^,"]*),\s*"(\w+)"|note\(\s*"(\w+)"|"(line_down|vmexit_\w+)\""""
    )
    emitted = set()
    for source in (ROOT / "kvmvfio_emu").rglob("*.py"):
        if source.parent.name not in ("cli", "uapi"):
            emitted |= {name for groups in named.findall(source.read_text(encoding="utf-8")) for name in groups if name}
    assert len(emitted) > 20
    assert emitted <= set(listed), f"not in docs/reference/events.md: {sorted(emitted - set(listed))}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"
