"""The README is run: its Python blocks in order, their output against the block that follows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_blocks(text: str, name: str) -> int:
    """Runs every ``python`` block of a Markdown text in one namespace; returns how many.

    A ``text`` block that directly follows a Python block is what it must print.
    """
    blocks = list(BLOCK.finditer(text))
    namespace = {"__name__": name}
    ran = 0
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        language, code = block.groups()
        if language != "python":
            continue
        # Blank lines in front, so that a traceback names the line of the Markdown file.
        padding = "\n" * text.count("\n", 0, block.start(2))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(padding + code, name, "exec"), namespace)
        ran += 1
        if following and following[1] == "text" and not text[block.end():following.start()].strip():
            assert printed.getvalue().rstrip() == following[2].rstrip(), f"printed by {name}"
    return ran


@pytest.mark.slow
def test_the_readme_examples_run_and_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(README.read_text("utf-8"), "README.md") >= 1


def test_a_block_sees_the_names_of_the_block_before():
    assert run_blocks("```python\nx = 1\n```\nand\n```python\nassert x == 1\n```\n", "t") == 2


def test_other_languages_are_not_run():
    assert run_blocks("```bash\nexit 1\n```\n```text\n1\n```\n", "t") == 0


def test_wrong_output_is_seen():
    good = "```python\nprint(2)\n```\n\n```text\n2\n```\n"
    assert run_blocks(good, "t") == 1
    with pytest.raises(AssertionError, match="printed by t"):
        run_blocks(good.replace("text\n2", "text\n3"), "t")


def test_an_error_names_the_line_of_the_markdown_file():
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks("# Title\n\n```python\n1 / 0\n```\n", "t")
    assert caught.traceback[-1].lineno + 1 == 4  # pytest counts lines from 0


def test_no_placeholder_and_no_dead_link_is_left_in_the_documentation():
    root = README.parent
    for page in (README, *sorted((root / "docs").glob("*.md"))):
        text = page.read_text("utf-8")
        assert "@@" not in text, page.name
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
