"""A program: becomes another one that is handed listening sockets by systemd's protocol (sd_listen_fds(3)).

    python -I -S handing_on.py DESCRIPTOR[,DESCRIPTOR…] COMMAND [ARGUMENT…]

The sockets come to stand at 3, 4, … in the order given, LISTEN_FDS tells how many they are and LISTEN_PID whose. That pid is
known in the child only, after its environment was made: this is why there is a program between. It costs some 10 ms.
"""

import fcntl
import os
import sys

FIRST = 3


def main() -> None:
    descriptors = [int(number) for number in sys.argv[1].split(",")]
    command = sys.argv[2:]
    # Out of the way first: one's place may be where another one still is.
    above = FIRST + len(descriptors)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for place, descriptor in enumerate(moved, FIRST):
        os.dup2(descriptor, place, inheritable=True)
    environment = {**os.environ, "LISTEN_FDS": str(len(moved)), "LISTEN_PID": str(os.getpid())}
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - that is what it is for
    except OSError as problem:
        sys.exit(f"{command[0]}: {problem.strerror}")


if __name__ == "__main__":
    main()
