"""Files of the sandbox, for the guest: loaded when the first is asked for. Standard library only, Python 3.9 or newer.

What runs here is the sandbox's own user in the sandbox's own file system: no path and no link leads anywhere else.
"""

import base64
import errno
import os
import shutil
import stat

HOME = "/scratch"
KINDS = {errno.ENOENT: "not_found", errno.ENOTDIR: "not_found", errno.EACCES: "not_allowed", errno.EPERM: "not_allowed", errno.EROFS: "not_allowed",
         errno.EEXIST: "exists", errno.EFBIG: "too_large", errno.ENOSPC: "no_space", errno.EDQUOT: "no_space"}


def do(frame):
    """Answer a ``file`` frame: what was asked for, or ``problem`` (a sentence) and its ``kind``."""
    path = os.path.join(HOME, frame["path"])
    try:
        return {"list": listed, "read": read, "write": write, "delete": delete, "make": make}[frame["do"]](path, frame)
    except (OSError, ValueError) as problem:
        number = getattr(problem, "errno", None) or 0
        return {"problem": getattr(problem, "strerror", None) or str(problem), "kind": KINDS.get(number, "other")}


def listed(path, frame):
    if stat.S_ISDIR(os.stat(path).st_mode):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path))]
    else:
        paths = [path]
    return {"entries": [_entry(found) for found in paths if os.path.lexists(found)]}


def _entry(path):
    facts = os.lstat(path)
    kind = "link" if stat.S_ISLNK(facts.st_mode) else "directory" if stat.S_ISDIR(facts.st_mode) else "file" if stat.S_ISREG(facts.st_mode) else "other"
    return {"name": os.path.basename(os.path.normpath(path)), "path": os.path.normpath(path), "kind": kind, "size_bytes": facts.st_size, "modified_at": facts.st_mtime}


def read(path, frame):
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")  # a pipe or a device would keep us waiting
    with open(path, "rb") as file:
        file.seek(frame["offset"])
        return {"data": base64.b64encode(file.read(frame["length"])).decode()}


def write(path, frame):
    data = base64.b64decode(frame["data"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("something else than a file is there")
    with open(path, "ab" if frame["append"] else "wb") as file:
        if file.tell() + len(data) > frame["largest"]:
            raise OSError(errno.EFBIG, f"a file may have {frame['largest'] >> 20} MiB")
        file.write(data)
        return {"size": file.tell()}


def make(path, frame):
    os.makedirs(path, exist_ok=True)
    return {}


def delete(path, frame):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return {}
