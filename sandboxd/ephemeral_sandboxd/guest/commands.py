"""What runs beside the interpreter, for the guest: shell, JavaScript, pip's door, standard input, code that awaits. Python 3.9 or newer."""

import asyncio
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing

DOOR = "/tmp/.ephemeral-pip"
GRACE_SECONDS = 0.7
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._ -]*\])?\s*(==\s*[0-9][A-Za-z0-9.+!*]*)?")
LOOSE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:[<>~!=].*)?")
ALONE = ("-q", "-qq", "--quiet", "-U", "--upgrade", "--user", "--no-cache-dir", "--break-system-packages", "--no-input", "--disable-pip-version-check",
         "--system", "-y", "--yes", "--pre", "--prefer-binary", "--only-binary=:all:", "--no-warn-script-location", "-v", "--verbose")

RUNNER = r"""
const vm = require('vm'), fs = require('fs'), util = require('util'), url = require('url');
const [code, module_, result] = process.argv.slice(1);
globalThis.require = require;
const source = fs.readFileSync(code, 'utf8');
let script = null;
try { script = new vm.Script(source, {filename: 'cell.js'}); } catch (problem) { fs.writeFileSync(module_, source); }
if (script) {
  Promise.resolve(script.runInThisContext()).then(value => { if (value !== undefined) fs.writeFileSync(result, util.inspect(value)); });
} else import(url.pathToFileURL(module_).href).catch(problem => { console.error(problem); process.exitCode = 1; });
"""


def run(guest, language, code):
    """Run ``code`` of another language than Python in a process of its own; the answer's fields."""
    if language == "shell":
        open_door(guest)
    guest.channel.send({"op": "started", "id": guest.output.execution})
    began = time.perf_counter()
    result = trouble = None
    try:
        if language == "shell":
            status = call(["/bin/sh", "-c", code])
            trouble = f"the shell ended with status {status}" if status else None
        else:
            result, trouble = javascript(code)
    except KeyboardInterrupt:
        trouble = "KeyboardInterrupt: the execution was interrupted\n"
    except Exception as problem:
        trouble = guest._traceback(problem)
    return {"result": result, "traceback": trouble, "import_ms": 0.0, "late": [], "run_ms": (time.perf_counter() - began) * 1000}


def call(command):
    """The status of a command in a process group of its own, which ends with an interrupt, all of it."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            _bury(process.pid)


def _end(process):
    """SIGINT to all of the group, then SIGKILL."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGINT:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it started may have ignored the first
            except ProcessLookupError:
                pass
        return


def _bury(group):
    """Collect the dead of the group that its own parents left behind: this process is the sandbox's first, and inherits them."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # none


def javascript(code):
    """(what the last expression came to, what went wrong). Each execution is a process of its own: nothing of it stays."""
    node = shutil.which("node")
    if node is None:
        return None, "this root filesystem has no Node: `ephemeral rootfs add NAME --package nodejs`, and open the session with root NAME"
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("cell.js", "cell.mjs", "result")]
        with open(paths[0], "w") as file:
            file.write(code)
        status = call([node, "-e", RUNNER, *paths])
        result = None
        if os.path.exists(paths[2]):
            with open(paths[2], errors="replace") as file:
                result = file.read()
    return result, f"node ended with status {status}" if status else None


# ---------------------------------------------------------------------------------------------------- code that awaits


def awaited(guest, coroutine):
    """The value of a cell that awaits. Its event loop lives as long as the session: tasks of earlier cells go on while one runs."""
    if guest.loop is None or guest.loop.is_closed():
        guest.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(guest.loop)
    task = guest.loop.create_task(coroutine)
    try:
        return guest.loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            try:
                guest.loop.run_until_complete(task)
            except BaseException:
                pass  # what interrupted it is what is told
        raise


# ---------------------------------------------------------------------------------------------------- standard input


def open_stdin(guest, frame):
    """Put a pipe on fd 0 that holds what came with the execution, and what is fed to it. Returns what takes it away again."""
    read_fd, write_fd = os.pipe()
    os.dup2(read_fd, 0)
    os.close(read_fd)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)
    texts: typing.Any = queue.SimpleQueue()
    texts.put(frame.get("stdin") or "")
    if frame.get("interactive"):
        receivers = guest.duplex().receivers

        def feed(frame):
            texts.put(frame.get("text") or "")
            if frame.get("close"):
                texts.put(None)

        receivers["stdin"] = feed
    else:
        receivers = {}
        texts.put(None)

    def write():
        """On a thread: a pipe holds 64 KB, and the code reads when it likes."""
        try:
            while (text := texts.get()) is not None:
                data = memoryview(text.encode("utf-8", "replace"))
                while data:
                    data = data[os.write(write_fd, data):]
        except OSError:
            pass  # nobody reads any more
        os.close(write_fd)

    threading.Thread(target=write, daemon=True).start()

    def put_back():
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)
        receivers.pop("stdin", None)
        texts.put(None)

    return put_back


# ---------------------------------------------------------------------------------------------------- pip's door


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
            except OSError:
                pass


def pip(guest, arguments, cwd):
    """``pip install`` through the host's policy and store: (whether it worked, what to tell). Other commands are pip's own business."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    if verb == "list" or verb == "freeze":
        import importlib.metadata

        found = sorted({(distribution.metadata["Name"] or "?", distribution.version) for distribution in importlib.metadata.distributions()})
        return True, "\n".join("{}=={}".format(*pair) for pair in found)
    if verb != "install":
        return False, "only `pip install` and `pip list` are possible here"
    try:
        wanted = requirements(arguments[arguments.index("install") + 1:], cwd)
    except ValueError as problem:
        return False, str(problem)
    if not wanted:
        return False, "nothing to install: name a package"
    answer = guest.ask({"op": "install", "requirements": wanted})
    if answer.get("ok"):
        guest.do_mount(answer)
    return bool(answer.get("ok")), str(answer.get("text") or "")


def requirements(words, cwd):
    """Names, and versions where they are exact. A range becomes its name: the newest that fits the rest is taken. Raises ValueError."""
    found = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word in ("-r", "--requirement"):
            if not words:
                raise ValueError("-r wants a file")
            with open(os.path.join(cwd, words.pop(0))) as file:
                words = [line.partition("#")[0].strip() for line in file if line.partition("#")[0].strip()] + words
        elif word in ALONE or word.startswith("--progress-bar"):
            continue
        elif word.startswith("-"):
            raise ValueError("{} is not possible here: packages come from the host's index, by name".format(word.partition("=")[0]))
        elif "/" in word or ":" in word or word.endswith((".whl", ".zip", ".gz")):
            raise ValueError(f"{word[:60]}: only packages by name, no addresses and no files")
        elif NAME.fullmatch(word):
            found.append(re.sub(r"\[.*?\]|\s", "", word))
        elif match := LOOSE.fullmatch(word):
            found.append(match[1])
        else:
            raise ValueError(f"{word[:60]!r} is no package")
    return found
