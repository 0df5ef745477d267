# `import rich` alone loads next to nothing.
import io

from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress
from rich.syntax import Syntax
from rich.table import Table

console = Console(file=io.StringIO())
table = Table(title="a")
table.add_column("a")
table.add_row("[bold]1[/]")
console.print(table)
console.print(Panel("a"), {"a": 1})
