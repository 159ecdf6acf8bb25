"""The reference pages, made of the docstrings; and pictures and links that lie outside of `docs/`.

A hook of mkdocs: `mkdocs build --strict -f docs/site/mkdocs.yml`. A public name without a docstring
is an error.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import jaxrel

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/jaxrel/jaxrel/blob/main/"
DOORS = (
    jaxrel,
    jaxrel.rules,
    jaxrel.rulesets,
    jaxrel.metrics,
    jaxrel.training,
    jaxrel.plot,
)
_SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Warns", "Example")


def pages() -> dict[str, str]:
    """The reference: a page for each module that is public, by its path under `docs/`."""
    made = {}
    for door in DOORS:
        entries = [_entry(door, name) for name in sorted(door.__all__)]
        whole = [
            f"# `{door.__name__}`",
            markdown(str(inspect.getdoc(door))),
            *filter(None, entries),
        ]
        made[f"reference/{door.__name__.rpartition('.')[2]}.md"] = "\n\n".join(whole) + "\n"
    return made


def _entry(door: Any, name: str) -> str:
    """What is said of a public name; nothing of modules, which have pages of their own."""
    value = getattr(door, name)
    if inspect.ismodule(value) or name == "__version__":
        return ""
    parts = [f"## `{name}`", *_said(f"{door.__name__}.{name}", name, value)]
    if isinstance(value, type):
        for method, function in vars(value).items():
            plain = getattr(function, "__func__", function)
            if isinstance(plain, FunctionType) and not method.startswith("_"):
                parts += [f"### `{name}.{method}`", *_said(f"{name}.{method}", method, plain)]
    return "\n\n".join(parts)


def _said(path: str, name: str, value: Any) -> Iterator[str]:
    """Signature and docstring.

    Raises:
        ValueError: There is none.
    """
    text = inspect.getdoc(value)
    if not text:
        raise ValueError(f"{path} is public and has no docstring")
    try:
        shown = re.sub(r"<[^<>]* at 0x\w+>", "...", str(inspect.signature(value)))
        shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", shown)  # annotations, of text
        yield f"```python\n{name}{shown}\n```"
    except (TypeError, ValueError):  # what is no call
        pass
    yield markdown(text)


def markdown(text: str) -> str:
    """A docstring in Google's style as Markdown."""
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    text = text.replace("``", "`")
    lines, section = [], ""
    for line in text.splitlines():
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            section = line[:-1]
            lines += ["", f"**{section}**", ""]
            lines += ["```python"] if section == "Example" else []
        elif section and line and not line.startswith(" "):
            lines += ["```"] if section == "Example" else []
            section = ""
            lines += ["", line]
        elif section in ("Args", "Attributes", "Raises", "Warns") and re.match(r"  \S", line):
            names, colon, rest = line[2:].partition(": ")
            named = re.fullmatch(r"[\w*, ]+", names) and (colon or line.endswith(":"))
            lines.append(f"- **{names.rstrip(':')}**: {rest}" if named else f"- {line[2:]}")
        else:
            lines.append(line[2:] if section else line)
    return "\n".join([*lines, "```"] if section == "Example" else lines)


# ------------------------------------------------------------------------------------------- hooks


def on_files(files: Any, config: Any) -> Any:
    """Adds the reference, and the pictures of the results that pages show."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    shown = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for name in sorted(set(re.findall(r"\]\(\.\./experiments/results/([\w.]+\.png)\)", shown))):
        picture = str(ROOT / "experiments" / "results" / name)
        files.append(File.generated(config, f"results/{name}", abs_src_path=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Pictures are those of the site, and other links out of `docs/` those of the repository."""
    del page, config, files
    markdown = re.sub(r"\]\(\.\./experiments/results/([\w.]+\.png)\)", r"](results/\1)", markdown)
    return re.sub(r"\]\(\.\./(?!\.)", rf"]({REPOSITORY}", markdown)
