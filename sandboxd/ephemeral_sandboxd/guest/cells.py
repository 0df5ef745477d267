"""Notebook habits, for the guest: ``!command``, ``%pip install``, ``%%bash``. Loaded when a cell holds a ``%`` or ``!``. Python 3.9 or newer.

Only what stands where a statement would begin is taken for one: a ``%`` inside a string or an expression stays what it is.
"""

import ast
import builtins
import io
import os
import re
import shlex
import sys
import tokenize

CELL = re.compile(r"\s*%%(\w+)[ \t]*(.*)\n?")
LINE = re.compile(r"(?P<indent>\s*)(?:(?P<names>[\w, ]+?)\s*=\s*)?(?P<mark>[!%])(?P<rest>.*)")
SILENT = ("matplotlib", "load_ext", "reload_ext", "autoreload", "config", "precision")
LINES_AT_MOST = 200


def translated(guest, code):
    """``code`` as Python. What Python itself understands is left alone."""
    first = CELL.match(code)
    if first is None and parses(code):
        return code
    vars(builtins)["__ephemeral__"] = Habits(guest)
    if first:
        kind, argument, rest = first[1], first[2], code[first.end():]
        if kind in ("bash", "sh", "script"):
            return f"__ephemeral__.shell({rest!r})"
        if kind in ("javascript", "js"):
            return f"__ephemeral__.javascript({rest!r})"
        if kind == "writefile":
            return f"__ephemeral__.writefile({argument.strip()!r}, {rest!r})"
        guest_note("%%" + kind)
        code = "\n" + rest  # line numbers stay those of the cell
    lines = code.split("\n")
    found = 0
    for number, line in enumerate(lines):
        match = LINE.match(line)
        if match and found < LINES_AT_MOST and begins_a_statement(lines[:number]):
            found += 1
            lines[number] = match["indent"] + statement(match)
    return "\n".join(lines)


def parses(code):
    try:
        compile(code, "<cell>", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def begins_a_statement(before):
    """Whether a statement may begin after these lines: no string, bracket or continued line is open."""
    if before and before[-1].rstrip().endswith("\\"):
        return False
    try:
        for _ in tokenize.generate_tokens(io.StringIO("\n".join(before) + "\n").readline):
            pass
    except tokenize.TokenError:
        return False
    except (SyntaxError, IndentationError):
        return True
    return True


def statement(match):
    """The Python for one ``!`` or ``%`` line."""
    names = (match["names"] + " = ") if match["names"] else ""
    rest = match["rest"].strip()
    if match["mark"] == "!":
        return "{}__ephemeral__.{}({!r})".format(names, "lines" if names else "line", rest.lstrip("!"))
    return f"{names}__ephemeral__.magic({rest!r})"


def guest_note(what):
    sys.stderr.write(f"{what} means nothing here and was ignored\n")


class Habits:
    """What the translated lines call, as ``__ephemeral__``."""

    def __init__(self, guest):
        self._guest = guest

    def line(self, command):
        """``!command``; pip goes through the host."""
        command = self._expanded(command)
        if pip := arguments_of_pip(_words(command)):
            self.pip(pip)
        else:
            self.shell(command)

    def lines(self, command):
        """``names = !command``: what it printed, line by line."""
        return self._guest.part("commands").call(["/bin/sh", "-c", self._expanded(command)], capture=True)[1].splitlines()

    def magic(self, text):
        """``%name rest``."""
        name, _, rest = text.partition(" ")
        if name == "pip":
            self.pip(_words(rest))
        elif name == "uv" and rest.strip().startswith("pip "):
            self.pip(_words(rest)[1:])
        elif name == "cd":
            os.chdir(os.path.expanduser(rest.strip() or "~"))
        elif name in ("env", "set_env") and "=" in rest:
            key, _, value = rest.partition("=")
            os.environ[key.strip()] = value.strip()
        elif name in ("time", "timeit") and rest:
            exec(compile(rest, "<%" + name + ">", "exec"), vars(sys.modules["__main__"]))
        elif name in ("sx", "system"):
            self.line(rest)
        elif name not in SILENT:
            guest_note("%" + name)

    def pip(self, words):
        ok, text = self._guest.part("packages").pip(self._guest, words, os.getcwd())
        (sys.stdout if ok else sys.stderr).write(text + "\n")
        if not ok:
            raise RuntimeError("pip " + " ".join(words) + ": " + text)

    def shell(self, command):
        status, _ = self._guest.part("commands").call(["/bin/sh", "-c", command])
        if status:
            sys.stderr.write(f"the shell ended with status {status}\n")

    def javascript(self, code):
        answer = self._guest.part("commands").run(self._guest, "javascript", code)
        if answer["traceback"]:
            sys.stderr.write(answer["traceback"] + "\n")

    def writefile(self, name, text):
        with open(os.path.expanduser(name), "w") as file:
            file.write(text)
        sys.stdout.write(f"Writing {name}\n")

    def _expanded(self, command):
        """``{name}`` and ``$name`` of Python variables, as IPython has them; anything else is the shell's."""
        names = vars(sys.modules["__main__"])  # a one-shot execution has its own

        def value(match):
            name = match[1] or match[2]
            return str(names[name]) if name in names and not name.startswith("_") else match[0]

        return re.sub(r"\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)", value, command)


def _words(command):
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def arguments_of_pip(words):
    """What follows ``pip`` in a command that is one, however it is written; None for any other command."""
    for form in (["pip"], ["pip3"], ["python", "-m", "pip"], ["python3", "-m", "pip"], ["uv", "pip"]):
        if words[: len(form)] == form:
            return words[len(form):]
    return None

