"""``ephemeral bench predictor``: how good the predictions are, on tasks whose solution is known.

| module | what it is |
|---|---|
| ``records`` | a file's lines into records; what cannot be read is counted |
| ``conversation`` | a record through the real path: request and stream, read as the proxy reads them, into belief and plan |
| ``reasoned`` | K2's decision on it, where a key is set |
| ``figures`` | predictions into figures |
| ``run`` | files in, the result out |
| ``closure`` | writes the table of what a package brings along (its own command) |
"""
