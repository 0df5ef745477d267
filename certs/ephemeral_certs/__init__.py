"""Who may come in from another machine: a private certificate authority, hashed tokens, invitations. And the one for interception.

| module | what it is |
|---|---|
| ``files`` | how all of it lies on disk: 0600 in 0700, written whole or not at all |
| ``authority`` | an authority in a directory: issues server and client certificates, revokes them, says what it issued |
| ``tokens`` | the bearer tokens, hashed: create, rotate, revoke, and the check that a server makes |
| ``invitation`` | all that another machine needs, in one file that a one-time code opens |
| ``interception`` | the authority by which the proxy reads what programs say to the configured providers, where they know no base URL |
| ``roots`` | the roots that programs trust already, for a bundle with ours |

A library without a process of its own: sandboxd checks with it, the command line writes with it.
"""
