"""``ephemeral settings``: the table of settings as it stands in this environment. Secrets are not shown."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ephemeral import settings

SECRET = ("token", "k2_api_key")


def table() -> Table:
    """One row a setting: variable, value now, help."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("variable", no_wrap=True)
    rows.add_column("value now", overflow="fold")
    rows.add_column("what it does", overflow="fold")
    for setting in settings.SETTINGS:
        try:
            value = settings.get(setting.name)
            shown = "" if value is None else ("set" if value else "not set") if setting.name in SECRET else str(value)
        except settings.SettingError as problem:
            shown = str(problem)
        rows.add_row(setting.variable, Text(shown), Text(setting.help))
    return rows
