# Its names are lazy.
import websockets

for name in ("connect", "serve", "ConnectionClosed"):
    getattr(websockets, name, None)
