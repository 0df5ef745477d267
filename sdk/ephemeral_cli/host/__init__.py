"""``ephemeral host``: a server that runs sandboxd, and the machines that use it from afar.

| module | what it is |
|---|---|
| ``commands`` | the commands and their options |
| ``certifying`` | on the server: its authority and its certificate |
| ``inviting`` | on the server: letting another machine in, and out again |
| ``joining`` | on the other machine: what an invitation leaves there |
| ``preparing`` | on the server: from a bare Debian or Ubuntu to a sandboxd that runs, as a plan of steps |
| ``files`` | what that plan writes, from the templates in ``data/``; and the cloud-init file |
| ``status`` | either side: what there is and when it expires |
"""
