"""Step three of the ladder: K2, asked at each user turn. Seconds slow, so it refines and is never waited for.

| module | what it is |
|---|---|
| ``agent`` | when to ask, how long to wait, when to stop trying |
| ``prompt`` | conversation, candidates and inventory -> messages |
| ``answer`` | the streamed answer -> a decision |
| ``breaker`` | stops asking a service that fails |
"""
