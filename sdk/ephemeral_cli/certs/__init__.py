"""``ephemeral certs``: the authority for programs that know no base URL, only HTTPS_PROXY.

| module | what it is |
|---|---|
| ``commands`` | the commands and their options |
| ``making`` | the authority, made or kept, and what there is to say about it |
| ``stores`` | the machine's own trust store: put into it, and taken out again |
| ``variables`` | what a program has to be told by its environment |
"""
