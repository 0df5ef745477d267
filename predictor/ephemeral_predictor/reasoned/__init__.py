"""Step three of the ladder: K2, asked at each user turn. Seconds slow, so it refines and is never waited for.

| module | what it is |
|---|---|
| ``agent`` | when to ask, how long to wait, what may come of an answer |
| ``service`` | where K2 is; one question over HTTP, its answer streamed; what its errors mean |
| ``prompt`` | conversation, candidates and inventory -> messages |
| ``inventory`` | what stands ready, what the host can afford, what the session's code did so far |
| ``answer`` | the streamed answer -> a decision, ``repair`` reads what is not of the form |
| ``budget`` | tokens and money that may be spent |
| ``breaker`` | stops asking a service that fails |
"""
