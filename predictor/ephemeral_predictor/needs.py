"""Whether a text asks for code that will run, and in Python. Most conversations need no sandbox at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CODE_TOOL = re.compile(
    r"(?:run|exec|execute|eval)\w*?[_-]?(?:code|python|script|cell|shell|bash|command)|code[_-]?(?:interpreter|exec\w*|runner)"
    r"|python|sandbox|jupyter|notebook|ipython|\b(?:shell|bash|terminal|repl)\b|^(?:execute|run|exec)$",
    re.IGNORECASE,
)
_PYTHON = re.compile(
    r"\bpython\d?\b|\bjupyter\b|\.(?:py|ipynb)\b|^[ \t]*(?:def|class) \w+.*:|^[ \t]*(?:import|from) \w+|```(?:py|python)?\s*$|>>> "
    r"|\b(?:pandas|numpy|matplotlib|scipy|sklearn|pytorch|torch|tensorflow|seaborn|opencv|pil|pillow|polars|np|pd|plt|df)\b",
    re.IGNORECASE | re.MULTILINE,
)
_ASKS_FOR_CODE = re.compile(
    r"\b(?:write|create|implement|generate|give|show|fix|debug|refactor|complete|build|make|develop|provide|need|want|use|using|run|execute)\b"
    r"[^.?!\n]{0,80}\b(?:code|scripts?|functions?|programs?|class(?:es)?|snippet|bot|plots?|charts?|graphs?|histograms?|heat ?maps?)\b",
    re.IGNORECASE,
)
_TASK = re.compile(
    r"\b(?:plot|comput|calculat|analy[sz]|convert|pars|read|load|sort|filter|merg|count|draw|visuali[sz]|train|predict|simulat|solv|integrat"
    r"|resiz|extract|scrap|download|cluster|fit|transform|normali[sz]|remov|replac|get|find|select|split|join|creat|generat|decod|encod|check"
    r"|sum|averag|multipl|rotat|crop|detect|encrypt|decrypt|sav|open|send|fetch|concatenat|group|append|set|drop|apply|chang|crea|obten|convert|leer)"
    r"\w*\b[^?!\n]{0,120}"
    r"\b(?:data|datasets?|files?|csv|tsv|xlsx|json|excel|images?|pictures?|photos?|data ?frames?|arrays?|matri(?:x|ces)|columns?|rows?"
    r"|tables?|urls?|web ?pages?|web ?sites?|api|histograms?|charts?|plots?|graphs?|axis|axes|models?|classifiers?|regression|equations?|functions?"
    r"|integral|derivative|lists?|dictionar(?:y|ies)|strings?|dates?|timestamps?|regex|tensors?|series|distribution|average|pdfs?|html|xml)\b"
    r"|[\w-]\.(?:csv|xlsx|parquet|json|png|jpe?g|pdf|docx|xls|tsv|wav)\b",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"`[A-Za-z_]\w*(?:[\[(.][^`\n]{0,60})?`")
_CHAT = re.compile(
    r"\s*(?:(?:so|ok|okay|please|can you|could you)[, ]+)?(?:what(?:'?s| is| are| was| were| do| does| did)\b|who\b|why\b|when\b|where\b|explain\b|tell me\b|describe\b"
    r"|summari[sz]e\b|translate\b|hello\b|hi\b|hey\b|thanks?\b|discuss\b|compare\b|list\b|rewrite\b|proofread\b|is (?:it|there)\b"
    r"|write (?:an? )?(?:\w+ )?(?:essay|story|poem|letter|email|article|song|blog|paragraph|report|review|speech|summary|sql|query)\b)",
    re.IGNORECASE,
)
_OTHER_LANGUAGE = re.compile(
    r"(?<![\w.])(?:c\+\+|java|javascript|typescript|node\.?js|rust|golang|c#|\.net|kotlin|swift|swiftui|php|ruby|perl|powershell|haskell|scala|julia"
    r"|verilog|matlab|vba|latex|tikz|react|angular|vue|jquery|sql|mysql|postgres(?:ql)?|bash|html|css|svg|arduino|esp32|unity|unreal|godot|lua|solidity"
    r"|terraform|kubernetes|ansible|docker|excel formula|google sheets|dax|power ?bi|assembly|webgl|three\.js|abap|cobol|fortran|flutter|dart"
    r"|elixir|clojure|erlang|prolog|ggplot2?|tidyverse|dplyr|spring ?boot|asp\.net|android|wordpress|mermaid|graphviz|c language"
    r"|in (?:c|r|go))(?![\w+#])",
    re.IGNORECASE,
)
_SAYS_PYTHON = re.compile(r"\b(?:python|jupyter|pandas|numpy|pytorch|sklearn|scikit)\b|\.py\b", re.IGNORECASE)
_STANDARD_LIBRARY = re.compile(
    r"\b(?:(?:only|just) (?:use |using )?the (?:python )?standard library|standard library only|stdlib only|no (?:external|third[- ]party|additional) (?:librar|package|dependenc|module)\w*"
    r"|without (?:using )?(?:any )?(?:external |third[- ]party |additional )?(?:librar|package|dependenc)\w*|only (?:built-?ins?|the standard))",
    re.IGNORECASE,
)
_INSTRUCTIONS = re.compile(r"\s*(?:#[^\n]*\n\s*)?(?:you are|you're|you have access|your (?:role|job|task) is)\b", re.IGNORECASE)

THRESHOLD = 0.3
"""Below this nothing is planned."""


def is_code_tool(name: str) -> bool:
    """Whether a tool of this name takes code to run."""
    return _CODE_TOOL.search(name) is not None


def is_instructions(text: str) -> bool:
    """Whether a text tells the model who it is: it says what may come, not what is asked."""
    return _INSTRUCTIONS.match(text) is not None


def wants_standard_library_only(text: str) -> bool:
    return _STANDARD_LIBRARY.search(text) is not None


@dataclass(frozen=True)
class Asked:
    """``probability``: that the answer to a text is Python code that runs. ``chat``: it begins as one that asks for words. ``other_language``: it speaks of another
    language or tool, and not of Python."""

    probability: float
    chat: bool
    other_language: bool


def read(text: str, names_library: bool = False) -> Asked:
    """What ``text`` asks for; ``names_library`` says that it names a package."""
    chat = _CHAT.match(text) is not None
    other_language = _OTHER_LANGUAGE.search(text) is not None and _SAYS_PYTHON.search(text) is None
    python = _PYTHON.search(text) is not None
    asks = _ASKS_FOR_CODE.search(text) is not None
    if python or asks:
        p = 0.85
    elif names_library or _TASK.search(text) or _VARIABLE.search(text):
        p = 0.6
    else:
        return Asked(0.05, chat, other_language)
    if chat and not (python and asks):
        p *= 0.4
    if other_language:
        p *= 0.15
    return Asked(p, chat, other_language)


def probability(text: str, names_library: bool = False) -> float:
    """The probability that the answer to ``text`` is Python code that runs."""
    return read(text, names_library).probability
