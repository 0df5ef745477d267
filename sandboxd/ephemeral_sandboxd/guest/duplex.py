"""The guest's channel once frames may come that answer nothing. Loaded when that begins. Python 3.9 or newer."""

import queue
import threading
import typing


class Duplex:
    """The channel once frames may come that answer nothing: a thread is its only reader, and hands each to whom it is for."""

    def __init__(self, channel):
        self._channel = channel
        self._requests: typing.Any = queue.SimpleQueue()
        self._answers: typing.Any = queue.SimpleQueue()
        self.receivers = {}
        """Beginning of an op -> who takes its frames, on the reader's thread."""
        self._early = []
        """Fed to an execution that has not begun to read."""
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def receive(self):
        return self._requests.get()

    def answer(self):
        return self._answers.get() or {}

    def listen_for_input(self, feed):
        """Call ``feed`` with every ``stdin`` frame, those included that were here before."""
        with self._lock:
            self.receivers["stdin"] = feed
            early, self._early = self._early, []
            for frame in early:
                feed(frame)

    def _read(self):
        while True:
            frame = self._channel.receive()
            if frame is None:
                self._requests.put(None)
                self._answers.put(None)
                return
            kind = frame["op"].partition("_")[0]
            if kind == "stdin":
                with self._lock:
                    self.receivers.get(kind, self._early.append)(frame)
            elif kind in self.receivers:
                self.receivers[kind](frame)
            elif kind in ("found", "installed"):
                self._answers.put(frame)
            else:
                self._requests.put(frame)
