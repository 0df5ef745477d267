"""A program that does a little of everything, for the guest: compiled and run before the code comes. Python 3.9 or newer.

A restored interpreter's memory comes in page by page, at the first touch of each: thousands of them for the first program of some length, 5 to 40 ms
of its wait. This touches what the parser, the compiler and the interpreter need. It prints nothing, imports nothing new, and changes nothing.
"""

PROGRAM = r'''
"""What code usually is."""
import json
import os.path as path
import re
import time
from collections import Counter, OrderedDict, defaultdict
from types import ModuleType as Module

LIMIT: int = 1_000
NAMES = ["alpha", 'beta', """gamma"""]
TABLE = {"a": [1, 2.5, -3e7], "b": (None, True, 0x1F), "c": {"x", "y"}, **{"d": 1j}}


class Shape:
    """One."""

    count = 0
    __slots__ = ("name", "_size")

    def __init__(self, name: str, size: float = 1.0, *rest, key=None, **more) -> None:
        self.name, self._size = name, size
        Shape.count += 1

    @property
    def size(self):
        return self._size

    @staticmethod
    def of(text):
        return Shape(text.strip().lower(), len(text))

    def __repr__(self):
        return f"<{self.name!r} {self.size:>8.2f} {LIMIT:,}>" + "%s-%d" % (self.name, 3)

    def __lt__(self, other):
        return self.size < other.size


class Square(Shape):
    def area(self, scale=2):
        return super().size ** 2 * scale if scale else -1


def numbers(most):
    n = 0
    while n < most:
        yield n
        n += 1
        if n % 7 == 0:
            continue
        elif n > 90 and not n & 1 or n == 95:
            break
    else:
        return


def task_func(data, columns=("a", "b"), *, strict=False):
    """
    Do it.
    """
    global LIMIT
    if not isinstance(data, (list, dict)):
        raise TypeError("no data: {}".format(type(data)))
    total = {}
    for index, (key, value) in enumerate(sorted(data.items(), key=lambda pair: str(pair[0]))):
        total[key] = total.get(key, 0) + sum(map(float, [1, 2])) + index
        try:
            result = value[0] / 0
        except ZeroDivisionError as problem:
            result = str(problem)
        except (KeyError, IndexError, TypeError, ValueError):
            result = None
        finally:
            total.setdefault("r", []).append(result)
    squares = [n * n for n in numbers(50) if n % 2]
    pairs = {a: b for a, b in zip(columns, range(5))}
    some = {x for row in ([1, 2], [3]) for x in row}
    first, *others = squares
    matrix = [[i + j for j in range(4)] for i in range(4)]
    matrix[0][1:3], matrix[-1][::2] = [9, 9], [8, 8]
    assert len(matrix) == 4 and first is not None, "odd"
    with_text = json.dumps({"t": sorted(some), "p": pairs}, indent=2, sort_keys=True)
    words = Counter(re.findall(r"\b\w+\b", with_text))
    groups = defaultdict(list)
    for word, n in words.most_common(3):
        groups[n].append(word)
    (size := len(groups)) and max(groups)
    return json.loads(with_text), path.join("a", "b"), size, any(groups), all([]), min(squares), round(first / 3, 2), abs(-1)


def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)


async def later():
    return 1


shapes = sorted([Square("q", 2), Shape.of(" R "), Shape("s", 0.5, 1, key=2, z=3)])
texts = [repr(shape) for shape in shapes] + ["-" * 10, "a,b".split(",")[1].upper().replace("B", "c")]
answer = task_func({"b": [1], "a": [2]}, strict=True)
try:
    task_func(3)
except TypeError as problem:
    told = str(problem)
recursive(10)
began = time.perf_counter()
del texts[0], told
table = OrderedDict((name, number) for number, name in enumerate(NAMES))
"\n".join(f"{name:<10}|{number:^5}" for name, number in table.items())
if __name__ == "__main__":
    main = Module("m")
[shape.area() for shape in shapes if isinstance(shape, Square)]
'''
