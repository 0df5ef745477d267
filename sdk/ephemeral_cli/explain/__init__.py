"""``ephemeral explain SESSION``: every decision of a session, with its evidence, its cost and what became of it.

| module | what it is |
|---|---|
| ``fetching`` | which session is meant, and all that sandboxd and the predictor tell of it |
| ``story`` | what happened, in order, and what it was good for; no I/O |
| ``showing`` | the story as a person reads it |
"""
