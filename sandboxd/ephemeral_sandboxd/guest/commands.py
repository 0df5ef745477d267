"""What runs beside the interpreter, for the guest: shell, JavaScript, standard input, code that awaits. Python 3.9 or newer."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import typing

GRACE_SECONDS = 0.7
RUNNER = r"""
const vm = require('vm'), fs = require('fs'), util = require('util'), url = require('url');
const [code, module_, result] = process.argv.slice(1);
globalThis.require = require;
const source = fs.readFileSync(code, 'utf8').trimEnd();
const parsed = text => { try { return new vm.Script(text, {filename: 'cell.js'}); } catch { return null; } };
const show = value => { if (value !== undefined) fs.writeFileSync(result, util.inspect(value)); };
const fail = problem => {
  console.error(util.inspect(problem).split('\n').filter(line => !/\[eval\]|\bnode:/.test(line)).join('\n'));
  process.exitCode = 1;
};
// Code that awaits goes into a function, which returns the last expression: what stands behind the last end of a statement that divides
// the code into statements and an expression.
const awaiting = () => {
  if (!parsed(`(async () => {${source}\n})`)) return null;
  for (let at = source.length - 1, tries = 0; at >= -1 && tries < 200; at--) {
    if (at >= 0 && source[at] !== ';' && source[at] !== '\n') continue;
    tries++;
    const before = source.slice(0, at + 1), last = source.slice(at + 1).trim().replace(/;$/, '');
    if (last && parsed(`(async () => (${last}\n))`) && parsed(`(async () => {${before}\n})`))
      return parsed(`(async () => {${before}return (${last}\n)})()`);
  }
  return parsed(`(async () => {${source}\n})()`);
};
const script = parsed(source) ?? awaiting();
if (script) (async () => show(await script.runInThisContext()))().catch(fail);
else {  // it has import lines, or is no JavaScript: that is then told
  fs.writeFileSync(module_, source);
  import(url.pathToFileURL(module_).href).catch(fail);
}
"""


def run(guest, language, code):
    """Run ``code`` of another language than Python in a process of its own; the answer's fields."""
    if language == "shell":
        guest.part("packages").open_door(guest)
    guest.channel.send({"op": "started", "id": guest.output.execution})
    began = time.perf_counter()
    result = trouble = None
    try:
        if language == "shell":
            status, _ = call(["/bin/sh", "-c", code])
            trouble = f"the shell ended with status {status}" if status else None
        else:
            result, trouble = javascript(code)
    except KeyboardInterrupt:
        trouble = "KeyboardInterrupt: the execution was interrupted\n"
    except Exception as problem:
        trouble = guest._traceback(problem)
    return {"result": result, "traceback": trouble, "import_ms": 0.0, "late": [], "run_ms": (time.perf_counter() - began) * 1000}


def call(command, capture=False):
    """(status, what it printed if that is to be captured) of a command in a process group of its own, which ends with an interrupt, all of it."""
    pipe = subprocess.PIPE if capture else None
    with subprocess.Popen(command, start_new_session=True, stdout=pipe, text=True, errors="replace") as process:
        try:
            printed = process.stdout.read() if process.stdout else ""
            return process.wait(), printed
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
    import shutil
    import tempfile

    node = shutil.which("node")
    if node is None:
        return None, "this root filesystem has no Node: `ephemeral rootfs add NAME --package nodejs`, and open the session with root NAME"
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("cell.js", "cell.mjs", "result")]
        with open(paths[0], "w") as file:
            file.write(code)
        status, _ = call([node, "-e", RUNNER, *paths])
        result = None
        if os.path.exists(paths[2]):
            with open(paths[2], errors="replace") as file:
                result = file.read()
    return result, f"node ended with status {status}" if status else None


# ---------------------------------------------------------------------------------------------------- code that awaits


def awaited(guest, coroutine):
    """The value of a cell that awaits. Its event loop lives as long as the session: tasks of earlier cells go on while one runs."""
    import asyncio

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

        def feed(fed):
            if fed.get("id") != frame["id"]:
                return  # it came too late for an earlier execution
            texts.put(fed.get("text") or "")
            if fed.get("close"):
                texts.put(None)

        guest.frames.listen_for_input(feed)
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
