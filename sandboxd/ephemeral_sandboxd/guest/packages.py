"""pip's door, for the guest: whoever says ``pip install`` in here asks the host. Loaded when code names pip. Python 3.9 or newer."""

import json
import os
import re
import socket
import threading

DOOR = "/tmp/.ephemeral-pip"
NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[A-Za-z0-9,._ -]*\])?\s*(?P<range>[<>=~!][<>=~!,.*+A-Za-z0-9 ]*)?")
EXACT = re.compile(r"==\s*(\d[A-Za-z0-9.+!]*)")
ALONE = ("-q", "-qq", "--quiet", "-U", "--upgrade", "--user", "--no-cache-dir", "--break-system-packages", "--no-input", "--disable-pip-version-check",
         "--system", "-y", "--yes", "--pre", "--prefer-binary", "--only-binary=:all:", "--no-warn-script-location", "-v", "--verbose",
         "--force-reinstall", "-I", "--ignore-installed", "--root-user-action=ignore")


def open_door(guest):
    """Have ``pip`` of any process in this sandbox (the small program bin/pip, first on PATH) ask here, and us ask the host."""
    if guest.door is not None:
        return
    guest.duplex()
    guest.door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.unlink(DOOR)
    except FileNotFoundError:
        pass
    guest.door.bind(DOOR)
    guest.door.listen(8)
    threading.Thread(target=_serve, args=(guest,), daemon=True).start()


def _serve(guest):
    while True:
        connection, _ = guest.door.accept()
        with connection, connection.makefile("rw") as stream:
            try:
                asked = json.loads(stream.readline())
                ok, text = pip(guest, asked["arguments"], asked["cwd"])
            except Exception as problem:
                ok, text = False, f"pip: {problem}"
            try:
                stream.write(json.dumps({"ok": ok, "text": text}) + "\n")
                stream.flush()
            except OSError:
                pass  # it did not wait


def pip(guest, arguments, cwd):
    """``pip install`` through the host's policy and store: (whether it worked, what to tell)."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    if verb in ("list", "freeze"):
        return True, "\n".join(f"{name}=={version}" for name, version in _installed())
    if verb != "install":
        return False, "only `pip install` and `pip list` are possible here"
    try:
        wanted = requirements(arguments[arguments.index("install") + 1:], cwd)
    except (OSError, ValueError) as problem:
        return False, str(problem)
    if not wanted:
        return False, "nothing to install: name a package"
    answer = guest.ask({"op": "install", "requirements": [requirement for requirement, _ in wanted]})
    if not answer.get("ok"):
        return False, str(answer.get("text") or "")
    guest.do_mount(answer)
    if unmet := _unmet(wanted):
        return False, unmet
    return True, str(answer.get("text") or "")


def requirements(words, cwd):
    """Pairs of (``name`` or ``name==version``, range that the version should be in or ""), of the words after ``pip install``.

    Raises ValueError for what cannot be installed here, OSError for a file that cannot be read.
    """
    found = []
    words = list(words)
    files = 0
    while words:
        word = words.pop(0)
        if word in ("-r", "--requirement") or word.startswith("--requirement="):
            name = word.partition("=")[2] or (words.pop(0) if words else "")
            files += 1
            if not name or files > 20:
                raise ValueError("-r wants a file" if not name else "requirements files that name each other")
            with open(os.path.join(cwd, os.path.expanduser(name))) as file:
                lines = [re.sub(r"(^|\s)#.*|;.*", "", line).strip() for line in file]  # no comments, no markers
            words = [word for line in lines for word in (line.split() if line.startswith("-") else [line]) if word] + words
        elif word in ALONE or word.startswith("--progress-bar"):
            continue
        elif word.startswith("-"):
            raise ValueError("{} is not possible here: packages come from the host's index, by name".format(word.partition("=")[0]))
        elif "/" in word or ":" in word or "@" in word or word.endswith((".whl", ".zip", ".gz")):
            raise ValueError(f"{word[:60]}: only packages by name, no addresses and no files")
        else:
            match = NAME.fullmatch(word.partition(";")[0].strip())
            if not match:
                raise ValueError(f"{word[:60]!r} is no package")
            wanted = (match["range"] or "").replace(" ", "")
            exact = EXACT.fullmatch(wanted)
            found.append((f"{match['name']}=={exact[1]}", "") if exact else (match["name"], wanted))
    return found


def _unmet(wanted):
    """A sentence when what is there now is not in the range that was asked for: the host takes names and exact versions only."""
    import importlib.metadata

    for name, clauses in wanted:
        if not clauses:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not all(in_range(version, clause) for clause in clauses.split(",") if clause):
            return f"{name} {version} is what is there now, and not {name}{clauses}: name an exact version ({name}==…)"
    return None


def in_range(version, clause):
    """Whether ``version`` meets one clause (``>=1.2``, ``~=1.4``, ``==2.*``). By its numbers alone: a pre-release counts as its release."""
    wanted = clause.lstrip("<>=~!")
    operator = clause[: len(clause) - len(wanted)]
    if wanted.endswith(".*"):
        same = _numbers(version)[: len(_numbers(wanted[:-2]))] == _numbers(wanted[:-2])
        return same if operator.startswith("=") else not same
    have, want = _numbers(version), _numbers(wanted)
    length = max(len(have), len(want))
    padded, floor = have + [0] * (length - len(have)), want + [0] * (length - len(want))
    if operator == "~=":
        return padded >= floor and have[: len(want) - 1] == want[:-1]
    return {"==": padded == floor, "===": padded == floor, "!=": padded != floor, ">=": padded >= floor, "<=": padded <= floor,
            ">": padded > floor, "<": padded < floor}.get(operator, False)


def _numbers(version):
    return [int(number) for number in re.findall(r"\d+", re.sub(r"[^\d.].*", "", version))]


def _installed():
    import importlib.metadata

    return sorted({(distribution.metadata["Name"] or "?", distribution.version) for distribution in importlib.metadata.distributions()})
