"""What a user's turns say about the bet that stands, beside what they say about packages: how much data there is, and whether it is over."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ephemeral_predictor import needs, sizes

OVER = 2
"""Turns in a row that ask for no code, and got none: after so many the conversation has moved on. One alone may be "yes, please"."""
_TAKES_BACK = re.compile(
    r"\b(?:never ?mind(?! (?:about )?(?:the|these|those|my) (?!rest|code|script|analysis|data|plot|chart|question|request))|forget (?:about )?(?:it|that|the (?:code|script|analysis|data|plot|chart))|(?<!is )(?<!are )no (?:more )?code(?: (?:is )?(?:needed|necessary|required|please))?\b(?! (?:style|smell|review))"
    r"|(?:don'?t|do not|no need to|not necessary to) (?:write|run|execute|use|need) (?:any |the |that |it |python )*(?:code|python|script|it)\b(?! (?:yet|again|twice))|without (?:writing |running |using )?(?:any )?code"
    r"|let'?s (?:talk|chat) about something else|something else entirely|change of (?:topic|subject))",
    re.IGNORECASE,
)
_LOOKED_AT = 4000


@dataclass
class Turns:
    """Those of one conversation, in order."""

    data_bytes: int = 0
    """The largest size of data that was spoken of."""
    asks: float = 1.0
    """The probability that the latest turn, taken by itself, asks for code."""
    idle: int = 0
    """Turns in a row that asked for none, since code was last seen."""

    def hear(self, text: str) -> None:
        """A text that speaks of data: the user's, or a tool's."""
        self.data_bytes = max(self.data_bytes, sizes.data_bytes(text))

    def spoke(self, text: str, asks: float) -> None:
        """The user's turn, which by itself asks for code with probability ``asks``. Call ``code_came`` for code in between."""
        if takes_back(text):
            self.asks, self.idle = 0.0, OVER
            return
        self.asks = asks
        self.idle = self.idle + 1 if self.asks < needs.THRESHOLD else 0

    def code_came(self) -> None:
        self.asks, self.idle = 1.0, 0

    @property
    def over(self) -> bool:
        """Whether the conversation has moved on to what needs no code."""
        return self.idle >= OVER


def takes_back(text: str) -> bool:
    """Whether the user says that no code is wanted (any more), and does not ask for some in the same breath."""
    text = text[:_LOOKED_AT]
    said = _TAKES_BACK.search(text)
    return said is not None and needs.probability(text[: said.start()] + " " + text[said.end() :]) < needs.THRESHOLD
