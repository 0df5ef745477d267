"""The guest's end of the network tunnel: a listener on the sandbox's own loopback, whose connections travel as frames over the guest's pipe.

The sandbox has no other network. What stands at the other end decides what may be reached. Python 3.9 or newer, standard library only.

Frames, both ways, ``c`` being the connection's number: ``net_open`` (guest to host), ``net_data`` (``data`` in base64), ``net_eof`` (nothing more will be
sent), ``net_close``, and ``net_credit`` (``bytes`` more may be sent: at most WINDOW_BYTES are under way in each direction of a connection).
"""

import base64
import os
import selectors
import socket
import threading
import time

WINDOW_BYTES = 256 << 10
PIECE_BYTES = 48 << 10
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
FULL_SECONDS = 0.1


class Connection:
    def __init__(self, number, peer):
        self.number = number
        self.peer = peer
        self.credit = WINDOW_BYTES
        """Bytes that may still be sent to the host."""
        self.waiting = bytearray()
        """Bytes from the host that the program has not taken yet."""
        self.owed = 0
        """Bytes it has taken, and of which the host was not told yet that it may send as many again."""
        self.ended = False
        """The host has nothing more for it."""
        self.read_all = False
        """The program has nothing more for the host."""
        self.shut = False
        """The program was told that nothing more comes."""


class Tunnel:
    """One thread moves all bytes; ``receive`` is called on another and only leaves its frame."""

    def __init__(self, send):
        self._send = send
        self._connections = {}
        self._numbers = 0
        self._frames = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._closing = False

    def open(self, frame):
        """Listen; point the usual variables at it, for this process and what it starts."""
        for end in (self._listener, self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._take_frames)
        self._thread.start()
        port = self._listener.getsockname()[1]
        for name in VARIABLES:
            os.environ[name] = os.environ[name.lower()] = f"http://127.0.0.1:{port}"
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1,::1"
        os.environ["NODE_USE_ENV_PROXY"] = "1"  # without it Node looks at none of them
        return {"port": port}

    def receive(self, frame):
        """A frame from the host. Called on the reader's thread."""
        with self._lock:
            self._frames.append(frame)
        self._wake()

    def close(self):
        """Cut every connection and stop listening. The variables stay: nothing else would be reached without them either."""
        self._closing = True
        self._wake()
        self._thread.join()

    def _wake(self):
        try:
            self._wake_write.send(b"!")
        except OSError:
            pass  # it has been woken often enough, or it has closed

    def _run(self):
        while not self._closing:
            for key, events in self._selector.select():
                try:
                    if callable(key.data):
                        key.data(events)
                    elif key.data.number in self._connections:  # what came before it in this list may have closed it
                        self._move(key.data, events)
                except OSError:
                    if isinstance(key.data, Connection):
                        self._close(key.data)
                    elif key.fileobj is self._listener:
                        time.sleep(FULL_SECONDS)  # the program has used up its descriptors: it may give some back
        for connection in list(self._connections.values()):
            self._close(connection)
        for end in (self._listener, self._wake_read, self._wake_write, self._selector):
            end.close()

    def _accept(self, events):
        peer, _ = self._listener.accept()
        peer.setblocking(False)
        self._numbers += 1
        connection = self._connections[self._numbers] = Connection(self._numbers, peer)
        self._selector.register(peer, selectors.EVENT_READ, connection)
        self._send({"op": "net_open", "c": connection.number})

    def _take_frames(self, events):
        self._wake_read.recv(4096)
        with self._lock:
            frames, self._frames = self._frames, []
        for frame in frames:
            connection = self._connections.get(frame.get("c"))
            if connection is None:
                continue
            op = frame["op"]
            if op == "net_data":
                connection.waiting += base64.b64decode(frame["data"])
            elif op == "net_credit":
                connection.credit += frame["bytes"]
            elif op == "net_eof":
                connection.ended = True
            elif op == "net_close":
                connection.ended = connection.read_all = True
            try:
                self._move(connection, selectors.EVENT_WRITE)
            except OSError:
                self._close(connection)

    def _move(self, connection, events):
        if events & selectors.EVENT_READ and connection.credit > 0:
            data = connection.peer.recv(min(PIECE_BYTES, connection.credit))
            connection.credit -= len(data)
            if data:
                self._send({"op": "net_data", "c": connection.number, "data": base64.b64encode(data).decode()})
            else:
                connection.read_all = True
                self._send({"op": "net_eof", "c": connection.number})
        if connection.waiting:
            try:
                taken = connection.peer.send(connection.waiting)
            except BlockingIOError:
                taken = 0
            del connection.waiting[:taken]
            connection.owed += taken
            if connection.owed >= WINDOW_BYTES // 4:
                self._send({"op": "net_credit", "c": connection.number, "bytes": connection.owed})
                connection.owed = 0
        if connection.ended and not connection.waiting and not connection.shut:
            connection.shut = True
            connection.peer.shutdown(socket.SHUT_WR)
        if connection.shut and connection.read_all:
            return self._close(connection)
        interest = (selectors.EVENT_READ if connection.credit > 0 and not connection.read_all else 0) | (selectors.EVENT_WRITE if connection.waiting else 0)
        return self._watch(connection, interest)

    def _watch(self, connection, interest):
        """A selector takes no empty interest: such a connection is left out of it until the host says something."""
        watched = connection.peer.fileno() in self._selector.get_map()
        if interest and watched:
            self._selector.modify(connection.peer, interest, connection)
        elif interest:
            self._selector.register(connection.peer, interest, connection)
        elif watched:
            self._selector.unregister(connection.peer)

    def _close(self, connection):
        if self._connections.pop(connection.number, None) is None:
            return
        self._watch(connection, 0)
        try:
            connection.peer.shutdown(socket.SHUT_RDWR)  # a child that the program forked may hold a copy: closing ours would not end it
        except OSError:
            pass  # it has ended already
        connection.peer.close()
        self._send({"op": "net_close", "c": connection.number})
