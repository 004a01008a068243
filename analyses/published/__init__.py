"""The published figures as one page: `python -m analyses.published` writes docs/results.md from analyses/results/.

Every file there has a section. What a section shows beside the conditions of its measurement is a function of its
record, in `contents`; a file that has none is shown by its rows.
"""

from pathlib import Path

from aft_lens.files import write_whole
from analyses.provenance import PUBLISHED
from analyses.published.contents import rows_of
from analyses.published.sections import SECTIONS, Section
from analyses.result import read_record

PAGE = Path("docs/results.md")
HEAD = """# Results

<!-- Written by `python -m analyses.published` from analyses/results/; a test holds that it is current. -->

Every figure that is published here was measured by the command below its table, which also writes the JSON file that
is named there, with versions and seeds. Intervals are 95 %.
"""


def page(folder: Path = PUBLISHED) -> str:
    """The page of a folder's records: those of `SECTIONS` in its order, then all others by their names."""
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    parts = [HEAD]
    for name in [*(name for name in SECTIONS if name in files), *(name for name in files if name not in SECTIONS)]:
        record = read_record(files[name], "the command in the README")
        section = SECTIONS.get(name) or Section(name.replace("_", " ").capitalize(), rows_of)
        conditions = _conditions(record)
        parts += [f"## {section.title}", section.words, section.content(record).strip()]
        parts += [f"![{words}]({file})" for file, words in section.figures]
        parts.append(f"`analyses/results/{name}.json`{conditions and f': {conditions}'}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(record: dict[str, object]) -> str:
    """How a record was measured, as far as it says so."""
    machine = record.get("machine")
    found = {**machine, **record} if isinstance(machine, dict) else record
    said = []
    if found.get("command"):
        said.append(f"by `{found['command']}`")
    if hardware := found.get("hardware"):
        said.append(f"on {', '.join(hardware) if isinstance(hardware, list) else hardware}")
    versions = found.get("versions")
    if isinstance(versions, dict) and "torch" in versions:
        said.append(f"PyTorch {versions['torch']}")
    method = found.get("method")
    return ", ".join(said) + ("." if said else "") + (f" {method}" if method else "")


def command(out: Path = PAGE, check: bool = False) -> None:
    """Write the published figures as a page of tables.

    Args:
        out: The page, Markdown.
        check: Write nothing, and fail if the page is not what would be written.
    """
    if not check:
        print(f"wrote {write_whole(out, page())}")
    elif not out.is_file() or out.read_text(encoding="utf-8") != page():
        raise ValueError(f"{out} is not what analyses/results says; run `python -m analyses.published`")
