"""Late imports: what a package usually imports only while code runs, learned from what executions reported.

``import torch`` is not all that a training loop imports. What at least two sessions imported while running, below a
package, is imported ahead for the next session that wants the package.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

SESSIONS_THAT_AGREE = 2
MODULES_A_PACKAGE = 400
COUNTED_A_PACKAGE = 4000
"""The names come from code that nobody trusts."""


class LateImports:
    """Counts per top-level module, kept in one small JSON file. Module names only: nothing of any code or conversation."""

    def __init__(self, file: Path):
        self._file = file
        self._counts: dict[str, Counter[str]] = {}
        self._heard: dict[str, set[str]] = {}
        try:
            self._counts = {top: Counter(counts) for top, counts in json.loads(file.read_text()).items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            log.warning("%s cannot be read and is begun anew: %s", file, problem)

    def usual(self, modules: Iterable[str]) -> list[str]:
        """What to import beyond ``modules``, most often seen first."""
        tops = {module.partition(".")[0] for module in modules}
        return [module for top in sorted(tops) for module, count in self._counts.get(top, Counter()).most_common(MODULES_A_PACKAGE)
                if count >= SESSIONS_THAT_AGREE]

    def learn(self, session_id: str, tops: Iterable[str], late: Iterable[str]) -> None:
        """An execution of ``session_id`` imported ``late`` modules; ``tops`` are the third-party ones it used."""
        heard = self._heard.setdefault(session_id, set())
        known = set(tops)
        changed = False
        for module in late:
            top = module.partition(".")[0]
            if top in known and module != top and module not in heard and all(part.isidentifier() for part in module.split(".")):
                counts = self._counts.setdefault(top, Counter())
                if module in counts or len(counts) < COUNTED_A_PACKAGE:
                    heard.add(module)
                    counts[module] += 1
                    changed = True
        if changed:
            draft = self._file.with_suffix(".new")
            try:
                draft.write_text(json.dumps(self._counts))
                os.replace(draft, self._file)
            except OSError as problem:  # a full disk: the execution that this was learned from is none the worse
                log.warning("%s cannot be written: %s", self._file, problem)

    def forget(self, session_id: str) -> None:
        self._heard.pop(session_id, None)
