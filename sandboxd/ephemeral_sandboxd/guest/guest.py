"""PID 1 of every sandbox: imports what it is told to, runs the code it is sent, says what happened.

Standard library only, Python 3.9 or newer: it runs inside gVisor on the root filesystem's own Python and knows nothing of the host.

It speaks frames over its inherited stdin and stdout: four bytes of length (big endian), then a JSON object. Host to
guest: ``mount`` (look at these slots from now on), ``preload`` (import a module), ``rehearse`` (run a small program of ours), ``settle`` (tidy the heap before a checkpoint or a
freeze), ``wake`` (code is on its way), ``renew`` (fresh randomness after a restore), ``network`` (open the tunnel's listener), ``file``, ``execute``; and
``stdin`` to code that waits for it. Guest to host: ``ready``, and for each request its answer with the request's ``id``; an execution also sends
``started`` at its first instruction, ``stdout``/``stderr`` pieces, ``output`` (rich results), ``need`` (a module that nothing provides: the host
answers ``found`` or not) and ``install`` (``%pip``: the host answers ``installed``); both bear the number of their ``question``.

What only some executions want lies in files beside this one, loaded by path when it is wanted: ``cells.py`` (``%`` and ``!`` lines), ``commands.py`` (shell,
JavaScript, standard input, ``await``), ``packages.py`` (pip), ``showing.py`` (rich results), ``warming.py``, ``files.py``, ``duplex.py``,
``tunnel.py``.

What runs here is malicious as far as the host is concerned: the host believes nothing that these frames say beyond
what they say about this sandbox.
"""

import ast
import builtins
import gc
import importlib
import importlib.machinery
import importlib.util
import io
import itertools
import json
import linecache
import os
import re
import select
import signal
import struct
import sys
import threading
import time
import traceback
import types
import typing

HEADER = struct.Struct(">I")
SLOTS = "/slots"
SEND_EVERY_SECONDS = 0.002
SEND_LATE_SECONDS = 0.05
"""What was printed thick and fast is on its way by then at the latest, also while the code says nothing more."""
LARGEST_OUTPUT = 40 << 20
"""Rich results of one execution together: the host would end a sandbox that sends much more."""
INTERRUPTED = "KeyboardInterrupt: the execution was interrupted\n"
CO_COROUTINE = 0x80  # as inspect has it, without importing inspect
PLAIN = frozenset({bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None)})


class Channel:
    """Frames over two private descriptors. Writing is locked: the readers of fd 1 and 2 write too."""

    def __init__(self, read_fd, write_fd):
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self.whole = True
        """The main thread is not in the middle of a frame."""
        self.interrupted = False
        """An interrupt came while it was: it is raised when the frame is out."""

    def receive(self):
        """The next frame, or None when the host has closed the pipe."""
        header = self._read(HEADER.size)
        if header is None:
            return None
        body = self._read(HEADER.unpack(header)[0])
        return None if body is None else json.loads(body)

    def send(self, frame):
        body = json.dumps(frame, ensure_ascii=False).encode("utf-8", "replace")
        data = memoryview(HEADER.pack(len(body)) + body)
        main = threading.current_thread() is threading.main_thread()
        if main:
            self.whole = False
        with self._lock:
            while data:
                data = data[os.write(self._write_fd, data):]
        if main:
            self.whole = True
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt

    def answer(self):
        """The answer to a question that was just sent: nothing else comes while code runs. An interrupt ends the wait for it, not its reading."""
        if not self._buffer:
            poll = select.poll()
            poll.register(self._read_fd, select.POLLIN)
            poll.poll()
        self.whole = False
        frame = self.receive() or {}
        self.whole = True
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt
        return frame

    def close(self):
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _read(self, length):
        """Exactly ``length`` bytes, or None at the end. One system call for a whole small frame, its header included."""
        while len(self._buffer) < length:
            part = os.read(self._read_fd, max(65536, length - len(self._buffer)))
            if not part:
                return None
            self._buffer += part
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data


class Output:
    """What an execution prints: through ``sys.stdout`` (sent directly) or through fd 1 and 2 (children, C code: a pipe).

    Counts what it sends and drops what exceeds the execution's allowance.
    """

    def __init__(self, channel):
        self._channel = channel
        self._lock = threading.RLock()
        self.execution = None
        self._left = 0
        self.rich_left = 0
        self.dropped = 0
        self.forked = False
        self._due = threading.Event()
        self._flushing = threading.Lock()
        self._flusher = None
        self._pipes = {}
        self._look = select.poll()
        for name, fd in (("stdout", 1), ("stderr", 2)):
            read_fd, write_fd = os.pipe()
            os.dup2(write_fd, fd)
            os.close(write_fd)
            os.set_blocking(read_fd, False)
            self._pipes[read_fd] = name
            self._look.register(read_fd, select.POLLIN)
            threading.Thread(target=self._watch, args=(read_fd,), daemon=True).start()
        sys.stdout = _Text(self, "stdout", 1)
        sys.stderr = _Text(self, "stderr", 2)

    def flush(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # the user's code may have closed or replaced it
                pass

    def flush_soon(self):
        """Have a thread flush in a moment, should nothing else do it before."""
        if self._flusher is None and not self.forked:
            self._flusher = threading.Thread(target=self._flush_late, daemon=True)
            self._flusher.start()
        if not self._due.is_set():
            self._due.set()

    def _flush_late(self):
        while True:
            self._due.wait()
            time.sleep(SEND_LATE_SECONDS)
            self._due.clear()
            with self._flushing:
                self.flush()

    def before_fork(self):
        self.flush()
        self._flushing.acquire()  # else its thread, which the child has not, might hold a stream's lock in it for ever

    def after_fork_in_parent(self):
        self._flushing.release()

    def after_fork(self):
        """In a forked child: what it prints goes through fd 1 and 2, like that of any other child. Another thread may hold the lock."""
        self.forked = True
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self.execution = None
        for read_fd in self._pipes:
            os.close(read_fd)
        self._pipes = {}
        self._look = select.poll()

    def begin(self, execution, allowance):
        with self._lock:
            self.execution, self._left, self.rich_left, self.dropped = execution, allowance, LARGEST_OUTPUT, 0

    def end(self):
        self.flush()
        with self._lock:
            self.drain()
            self.execution = None
            return self.dropped

    def write(self, name, data):
        with self._lock:
            self.drain()  # a child's output that is already in the pipe was written before this
            self._emit(name, data)

    def drain(self):
        """Read what is in the pipes now. The lock is held: no reader has taken something and not sent it."""
        for fd, _ in self._look.poll(0):  # one system call where there is nothing: in a sandbox each is dear
            name = self._pipes[fd]
            while True:
                try:
                    data = os.read(fd, 65536)
                except BlockingIOError:
                    break
                if not data:
                    break
                self._emit(name, data)

    def _emit(self, name, data):
        if self.execution is None:
            return
        kept = bytes(data[: self._left])
        self._left -= len(kept)
        self.dropped += len(data) - len(kept)
        if kept:
            self._channel.send({"op": name, "id": self.execution, "text": kept.decode("utf-8", "replace")})

    def _watch(self, fd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while True:
            ((_, event),) = poll.poll()
            if not event & select.POLLIN:
                return  # nobody has its other end any more: the code closed fd 1 or 2
            with self._lock:
                self.drain()


class _Text(io.TextIOWrapper):
    """Sends a finished line at once, so that it stands before what a child prints next, unless lines come thick and fast."""

    def __init__(self, output, name, fd):
        super().__init__(io.BufferedWriter(_Stream(output, name, fd), 8192), "utf-8", "backslashreplace", newline="\n")
        self._output = output
        self._sent = 0.0
        self._unsent = False

    def write(self, text):
        written = super().write(text)
        if "\n" in text and (now := time.perf_counter()) - self._sent > SEND_EVERY_SECONDS:
            self._sent = now
            self.flush()
        elif self._unsent:
            self._output.flush_soon()
        else:
            self._unsent = True  # print() writes its newline next
        return written

    def flush(self):
        self._unsent = False
        super().flush()


class _Stream(io.RawIOBase):
    """The raw end of sys.stdout or sys.stderr."""

    def __init__(self, output, name, fd):
        self._output = output
        self._name = name
        self._fd = fd

    def writable(self):
        return True

    def fileno(self):
        return self._fd

    def write(self, data):
        if self._output.forked:
            return os.write(self._fd, data)
        self._output.write(self._name, memoryview(data))
        return len(data)


class ImportClock:
    """How long imports of modules that were not already loaded take, and which modules they were.

    CPython looks ``_find_and_load`` up in ``importlib._bootstrap`` at every import that misses ``sys.modules`` and
    at no other: a wrapper there costs loaded modules nothing.
    """

    def __init__(self):
        self._bootstrap = typing.cast(typing.Any, sys.modules["_frozen_importlib"])
        self._original = self._bootstrap._find_and_load
        self._local = threading.local()
        self._bootstrap._find_and_load = self._timed
        self.seconds = 0.0

    def reset(self):
        self.seconds = 0.0

    def _timed(self, name, import_):
        if getattr(self._local, "inside", False):
            return self._original(name, import_)
        self._local.inside = True
        began = time.perf_counter()
        try:
            return self._original(name, import_)
        finally:
            self._local.inside = False
            self.seconds += time.perf_counter() - began


class LastResort:
    """The last finder: the user's own code imports a module that nothing provides. The host is asked, and may mount it meanwhile.

    Only the user's code, not the libraries': they try for dozens of optional modules that nobody needs. One question a module.
    """

    def __init__(self, guest):
        self._guest = guest
        self._asked = set()

    def find_spec(self, name, path=None, target=None):
        guest = self._guest
        if path is not None or name in self._asked or guest.output.execution is None or guest.output.forked:
            return None
        if threading.current_thread() is not threading.main_thread() or not self._users_own():
            return None
        self._asked.add(name)
        try:
            frame = guest.ask({"op": "need", "module": name})
        except KeyboardInterrupt:
            self._asked.discard(name)
            raise
        if not frame.get("found"):
            return None
        guest.do_mount(frame)
        return importlib.machinery.PathFinder.find_spec(name)

    @staticmethod
    def _users_own():
        """Whether the import statement (or the call of import_module) stands in a cell."""
        frame: typing.Any = sys._getframe(1)
        while frame is not None and (frame.f_code.co_filename.startswith("<frozen importlib")
                                     or frame.f_code.co_filename in (__file__, importlib.__file__)):
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.startswith("<cell ")


class Guest:
    """The interpreter: one ``__main__`` for the sandbox's life, so that a session's calls share their state."""

    def __init__(self, channel):
        self.channel = channel
        self.frames = channel
        self.output = Output(channel)
        self.clock = ImportClock()
        sys.meta_path.append(LastResort(self))
        self.cells = 0
        self.loop = None
        self.door = None
        self._asking = threading.Lock()
        self._questions = 0
        self._parts = {}
        self.main = self._module()
        sys.modules["__main__"] = self.main
        os.register_at_fork(before=self.output.before_fork, after_in_parent=self.output.after_fork_in_parent, after_in_child=self._after_fork)

    def _module(self):
        module = types.ModuleType("__main__")
        module.__dict__.update(__builtins__=builtins, display=self.display)
        return module

    def _after_fork(self):
        """A child (multiprocessing, os.fork) must not speak to the host: two would talk into each other's frames."""
        self.channel.close()
        self.output.after_fork()

    def serve(self):
        self.channel.send({"op": "ready", "python": sys.version.split()[0]})
        while True:
            try:
                frame = self.frames.receive()
                if frame is None:
                    return
                handler = getattr(self, "do_" + frame["op"], None)
                if handler is None:
                    continue  # an answer that nobody waits for any more: its question was interrupted
                try:
                    answer = handler(frame)
                except KeyboardInterrupt:  # it came before the code's first instruction, or after its last
                    answer = {"result": None, "traceback": INTERRUPTED, "import_ms": 0.0, "run_ms": 0.0, "late": [], "dropped": self.output.end()}
                if self.output.forked:
                    self.output.flush()
                    os._exit(0)  # a child of the code's that came out of it at its end
                self.channel.send({"op": "done", "id": frame["id"], **answer})
            except KeyboardInterrupt:
                continue  # it came after its execution was over

    def interrupt(self, number, frame):
        """SIGINT. It ends the code that runs, never one of our frames in its middle; when no code runs it is late, and means nothing."""
        if not self.channel.whole:
            self.channel.interrupted = True
        elif self.output.execution is not None:
            raise KeyboardInterrupt

    def ask(self, question):
        """Put a question to the host while code runs, and wait for its answer. From another thread than the main one only once duplex."""
        with self._asking:
            self._questions += 1
            self.channel.send({**question, "id": self.output.execution, "question": self._questions})
            while True:
                frame = self.frames.answer()
                if not frame or frame.get("question") == self._questions:  # an earlier one's was interrupted, and comes late
                    return frame

    def part(self, name):
        """The module of ours in the file ``name``, beside this one."""
        if name not in self._parts:
            spec: typing.Any = importlib.util.spec_from_file_location("ephemeral_" + name, os.path.join(os.path.dirname(__file__), name + ".py"))
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self._parts[name] = module
        return self._parts[name]

    def duplex(self):
        """Have frames read by a thread from now on."""
        if self.frames is self.channel:
            self.frames = self.part("duplex").Duplex(self.channel)
        return self.frames

    # ------------------------------------------------------------------------------------------------ preparing

    def do_mount(self, frame):
        """Look for modules in these slots from now on; those in ``first`` win over the base environment."""
        for path in frame.get("slots", []):
            if path not in sys.path:
                sys.path.append(path)
        for path in frame.get("first", []):
            if path not in sys.path:
                sys.path.insert(0, path)
        for path in list(sys.path_importer_cache):
            if path.startswith(SLOTS):
                sys.path_importer_cache.pop(path, None)
        return {}

    def do_preload(self, frame):
        """Import ``module``."""
        return self._timed(lambda: __import__(frame["module"]))

    def do_rehearse(self, frame):
        """Run ``program`` (ours, trusted) in a namespace of its own, so that what a module loads lazily is loaded."""
        return self._timed(lambda: exec(compile(frame["program"], "<rehearsal>", "exec"), {"__name__": "rehearsal"}))

    @staticmethod
    def _timed(work):
        began = time.perf_counter()
        error = None
        try:
            work()
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"
        return {"ms": (time.perf_counter() - began) * 1000, "error": error}

    def do_settle(self, frame):
        """Nothing that exists now has to be looked at by the collector again; the heap is as small as it gets."""
        self._warm()
        self.cells = 0
        linecache.clearcache()
        gc.collect()
        gc.freeze()
        return {"modules": sorted(sys.modules) if frame.get("modules") else []}

    def do_wake(self, frame):
        """The pages that an execution touches first are in memory when the code comes."""
        self._warm()
        return {}

    def _warm(self):
        """Run a program of ours as an execution would be run, out of sight of the session's own."""
        self._execute(self.part("warming").PROGRAM, 0, types.ModuleType("warming"))
        linecache.cache.pop(f"<cell {self.cells}>", None)
        self.cells -= 1

    def do_renew(self, frame):
        """Copies of one snapshot share their random state: give this one its own.

        What asks the kernel each time (secrets, os.urandom, numpy's default_rng, uuid4) needs nothing. The seed of str's hash cannot be changed
        in a running interpreter: copies of one snapshot order their sets alike, which nobody outside the sandbox can use.
        """
        seed = frame["seed"]
        random = sys.modules.get("random")
        if random:
            random.seed(seed)
        tempfile: typing.Any = sys.modules.get("tempfile")
        if tempfile:
            tempfile._name_sequence = None
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random:
            numpy_random.seed(int(seed[:8], 16))
        torch = sys.modules.get("torch")
        if torch:
            torch.manual_seed(int(seed[:15], 16))
        uuid: typing.Any = sys.modules.get("uuid")
        if uuid:
            uuid._last_timestamp = uuid._generate_time_safe = None  # libuuid's own clock sequence cannot be reached: Python's stands in
            uuid._node = (int(seed[:12], 16) & ((1 << 48) - 1)) | (1 << 40)
        process: typing.Any = sys.modules.get("multiprocessing.process")
        if process:
            process.current_process().authkey = os.urandom(32)
        ssl = sys.modules.get("ssl")
        if ssl:
            ssl.RAND_add(seed, 16.0)
        os.environ.update(frame.get("environ", {}))
        return {}

    def do_network(self, frame):
        """Open the tunnel's listener: connections to it come out as frames."""
        tunnel = self.part("tunnel").Tunnel(self.channel.send)
        self.duplex().receivers["net"] = tunnel.receive
        return {**tunnel.open(frame)}

    def do_file(self, frame):
        """List, read, write or delete a file, as this sandbox's own user."""
        return self.part("files").do(frame)

    # ------------------------------------------------------------------------------------------------ executing

    def do_execute(self, frame):
        if not set(frame["slots"] + frame["first"]).issubset(sys.path):
            self.do_mount(frame)
        self.output.begin(frame["id"], frame["output_bytes"])
        put_back = self._open_stdin(frame)
        try:
            language = frame.get("language", "python")
            if language != "python":
                answer = self.part("commands").run(self, language, frame["code"])
            else:
                code = frame["code"]
                if "pip" in code and re.search(r"\bpip3?\b", code):  # and not a pipeline
                    self.part("packages").open_door(self)
                if "%" in code or "!" in code:
                    code = self.part("cells").translated(self, code)
                main = self.main
                if frame.get("one_shot"):
                    main = sys.modules["__main__"] = self._module()
                try:
                    answer = self._execute(code, frame["id"], main)
                finally:
                    sys.modules["__main__"] = self.main
        finally:
            put_back()
        answer["dropped"] = self.output.end()
        for field in ("result", "traceback"):
            text = answer[field] or ""
            if len(text) > frame["output_bytes"]:
                answer[field] = text[: frame["output_bytes"]]
                answer["dropped"] += len(text) - frame["output_bytes"]
        return answer

    def _open_stdin(self, frame):
        """Standard input of this execution: what came with it, or what is fed while it runs. Returns what puts it back to nothing."""
        if not frame.get("stdin") and not frame.get("interactive"):
            return lambda: None
        return self.part("commands").open_stdin(self, frame)

    def _execute(self, code, execution, main=None):
        """Run ``code`` in ``main``. The answer holds the last expression's repr, the traceback, and the clocks."""
        names = (main or self.main).__dict__
        self.cells += 1
        name = f"<cell {self.cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        answer: dict[str, typing.Any] = {"result": None, "traceback": None}
        body = last = None
        try:
            tree = ast.parse(code, name)
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                last = compile(ast.Expression(tree.body.pop().value), name, "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            body = compile(tree, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            del tree
        except BaseException as problem:  # a SyntaxError, or MemoryError and RecursionError from hostile nesting
            answer["traceback"] = "".join(traceback.format_exception_only(type(problem), problem))
        before = len(sys.modules) if execution else 0
        self.clock.reset()
        if execution:
            self.channel.send({"op": "started", "id": execution})
        began = time.perf_counter()
        if body is not None:
            try:
                self._evaluate(body, names)
                if last is not None:
                    value = self._evaluate(last, names)
                    if value is not None:
                        names["_"] = value
                        answer["result"] = self._represent(value)
                if pyplot := sys.modules.get("matplotlib.pyplot"):
                    self.part("showing").figures(self, pyplot)
            except BaseException as problem:
                answer["traceback"] = self._traceback(problem)
        ended = time.perf_counter()
        # New modules stand at the end: sys.modules keeps the order of their imports. Without an import there is none, and nothing to walk past.
        late = itertools.islice(sys.modules, before, before + 3000) if execution and self.clock.seconds else ()
        answer.update(import_ms=self.clock.seconds * 1000, run_ms=(ended - began) * 1000, late=sorted(late))
        return answer

    def _evaluate(self, code, names):
        """Run compiled code. Code that awaits runs in one event loop, which lives as long as the session does."""
        value = eval(code, names)
        if not code.co_flags & CO_COROUTINE:
            return value
        return self.part("commands").awaited(self, value)

    @staticmethod
    def _traceback(problem):
        if isinstance(problem, SystemExit) and problem.code in (None, 0):
            return None
        if isinstance(problem, KeyboardInterrupt):
            return INTERRUPTED
        # Our own frames say nothing to the one who wrote the code.
        ours = os.path.dirname(__file__)
        trace = problem.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
            trace = trace.tb_next
        kept = traceback.TracebackException(type(problem), problem, trace, limit=-100)
        for part in _chain(kept):
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(ours)]
        return "".join(kept.format())

    # ------------------------------------------------------------------------------------------------ rich results

    def display(self, *values):
        """Show each value richly now: an image or markup where its type has one, and its repr."""
        for value in values:
            sys.stdout.write(self._represent(value) + "\n")

    def _represent(self, value):
        """The repr of ``value``; what it has of IPython's display methods goes out as rich output beside it."""
        kind = type(value)
        if kind not in PLAIN and kind.__module__ != "builtins":
            self.part("showing").show(self, value)
        return repr(value)

def _chain(kept, depth=20):
    while kept is not None and depth:
        yield kept
        kept, depth = kept.__cause__ or kept.__context__, depth - 1


def main():
    # Nothing that user code does to fd 0, 1 and 2 may reach the frames.
    read_fd, write_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.argv = [""]
    sys.path[:] = [path for path in sys.path if not path.startswith("/ephemeral")]
    sys.path.insert(0, "")
    guest = Guest(Channel(read_fd, write_fd))
    signal.signal(signal.SIGINT, guest.interrupt)
    guest.serve()


if __name__ == "__main__":
    main()
