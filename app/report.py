"""The evidence folder: results that a visitor has put aside, with the commands that make them, as one archive."""

import io
import json
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

from app.back import shelf

STYLE = (
    "body{font:16px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}pre{overflow:auto}"
)


def archive(items: Sequence[tuple[str, str]], address: str) -> bytes:
    """A ZIP of a folder for each (title, place of its result), and a page that leads through them."""
    buffer = io.BytesIO()
    parts = [f"<!doctype html><meta charset=utf-8><title>AFT Lens report</title><style>{STYLE}</style>",
             "<h1>AFT Lens report</h1>", f"<p>Made from <code>{escape(address)}</code></p>"]  # fmt: skip
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for number, (title, place) in enumerate(items, 1):
            content = shelf.get(Path(place))
            if content is None:
                continue
            folder = f"{number:02d}-{Path(place).name}"
            parts.append(f"<h2>{escape(title)}</h2>")
            if content.get("command"):
                parts.append(f"<pre>{escape(' '.join(content['command']))}</pre>")
            if content.get("python"):
                parts.append(f"<pre>{escape(content['python'])}</pre>")
            for file in shelf.files(Path(place)):
                out.write(file, f"{folder}/{file.name}")
                if file.suffix == ".png":
                    parts.append(f'<img src="{folder}/{file.name}" alt="{escape(title)}">')
                else:
                    parts.append(f'<a href="{folder}/{file.name}">{file.name}</a> ')
            if "table" in content:
                table = content["table"]
                out.writestr(f"{folder}/table.csv", _csv([table["columns"], *table["rows"]]))
                parts.append(_table(table["columns"], table["rows"], f"{table['title']} {table['note']}"))
            out.writestr(f"{folder}/command.json", json.dumps(content.get("command", [])))
            out.writestr(f"{folder}/made.py", content.get("python", "") + "\n")
        out.writestr("index.html", "\n".join(parts))
    return buffer.getvalue()


def _csv(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: str) -> str:
    head = "".join(f"<th>{escape(str(name))}" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in row) for row in rows)
    return (
        f"<p>{escape(words)}</p><table border=1 cellpadding=4 style='border-collapse:collapse'><tr>{head}{body}</table>"
    )
