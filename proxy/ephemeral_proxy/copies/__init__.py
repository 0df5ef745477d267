"""The copy of each conversation: how it leaves the processes that carry the traffic, and how it is read in another.

| module | |
|---|---|
| ``frames`` | what a worker tells the reader, as bytes |
| ``sending`` | a worker's side: a bounded queue in front of a socket; drops the oldest and counts |
| ``reading`` | the reader's side: frames back into conversations, and these into events |
| ``websocket`` | the messages in the two directions of a WebSocket |
| ``encodings`` | content codings beyond the standard library's |
"""
