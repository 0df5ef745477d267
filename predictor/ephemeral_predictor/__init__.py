"""The predictor: events of conversations in, plans for sandboxd out.

| module | what it is |
|---|---|
| ``app`` | the HTTP endpoints and the wiring |
| ``listener`` | what each event sets off: a digest claimed, a moment, a plan, a question to K2 |
| ``state`` | what is believed of one conversation; no I/O |
| ``evidence`` | one sign that a package will be needed |
| ``seen`` | imports, installs and names that stand in the text |
| ``learned`` | what words that name no package say about packages: the rules |
| ``model`` | the same, as a trained model (``ephemeral train``) |
| ``history``, ``following`` | what an app's earlier sessions imported, learned from sandboxd's ledger |
| ``needs`` | whether a text asks for code at all |
| ``planner`` | belief -> plan; no I/O |
| ``sandboxd`` | the way to sandboxd: never waited for |
| ``redact`` | takes secrets out of a text |
| ``reasoned`` | K2 |
| ``estimate`` | offline: how often each rule is right |
| ``tasks`` | tasks of known solution, and what packages bring along |
| ``bench`` | how good the predictions are (``ephemeral bench predictor``) |
"""
