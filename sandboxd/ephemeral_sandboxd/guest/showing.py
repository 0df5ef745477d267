"""Rich results, for the guest: IPython's display protocol, data frames, figures. Loaded when a value may have one. Python 3.9 or newer."""

import base64
import io
import json
import math
import sys

METHODS = (
    ("_repr_png_", "image/png"), ("_repr_jpeg_", "image/jpeg"), ("_repr_svg_", "image/svg+xml"), ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"), ("_repr_latex_", "text/latex"), ("_repr_json_", "application/json"),
)
"""IPython's display protocol, the richest first."""
ROWS_SHOWN = 500
COLUMNS_SHOWN = 200


def show(guest, value):
    """Send what ``value`` has to show, if it has."""
    for mime, data in rich(value):
        send(guest, mime, data)


def rich(value):
    """Pairs of (mime type, data): its bundle, else the first image, else its markup; a data frame's rows as JSON too."""
    shown = []
    kind = type(value)
    try:
        bundle = kind._repr_mimebundle_(value)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        shown = [(mime, data) for mime, data in (bundle or {}).items() if mime != "text/plain"]
    except Exception:
        pass
    for method, mime in () if shown else METHODS:
        try:
            data = getattr(kind, method)(value)
        except Exception:
            continue
        if data:
            shown.append((mime, data[0] if isinstance(data, tuple) else data))
            break
    if kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("pandas", "polars"):
        try:
            shown.append(("application/json", table(value)))
        except Exception:
            pass
    return shown


def figures(guest, pyplot):
    """Open matplotlib figures are shown as PNG and closed, as notebooks do."""
    for number in pyplot.get_fignums():
        buffer = io.BytesIO()
        pyplot.figure(number).savefig(buffer, format="png", bbox_inches="tight")
        pyplot.close(number)
        send(guest, "image/png", buffer.getvalue())


def send(guest, mime, data):
    """One rich result to the host: bytes in base64, text as it is, all else as JSON. What is too much is left out, and that is said."""
    if isinstance(data, (bytes, bytearray)):
        text = base64.b64encode(data).decode()
    else:
        text = data if isinstance(data, str) else json.dumps(data, default=str)
    size = len(text) if len(text) < 1 << 20 else len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))
    if size > guest.output.rich_left:
        sys.stderr.write(f"{mime} of {size / 1e6:.0f} MB was left out: all that one execution shows may have 40 MB\n")
        return
    guest.output.rich_left -= size
    guest.channel.send({"op": "output", "id": guest.output.execution, "mime": mime, "data": text})


def table(frame):
    """A pandas or polars data frame as JSON: ``columns``, ``rows`` (null where there is no value), and how many of each were left out."""
    import json

    shown = frame.head(ROWS_SHOWN)
    columns = [str(column) for column in shown.columns]
    rows = shown.rows() if hasattr(shown, "rows") else shown.itertuples(index=False, name=None)
    content = {"columns": columns[:COLUMNS_SHOWN], "rows": [[_plain(value) for value in row[:COLUMNS_SHOWN]] for row in rows],
               "rows_left_out": max(0, len(frame) - ROWS_SHOWN), "columns_left_out": max(0, len(columns) - COLUMNS_SHOWN)}
    return json.dumps(content)


def _plain(value):
    """``value`` in JSON's own types: numbers as numbers, what is no number as null, all else as text."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or type(value) in (str, int, bool):
        return value
    if hasattr(value, "item"):  # numpy's own numbers
        return _plain(value.item())
    text = str(value)
    return None if text in ("NaT", "<NA>") else text
