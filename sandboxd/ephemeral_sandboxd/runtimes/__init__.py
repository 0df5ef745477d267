"""One sandbox at a time: boot it, restore it, mount into it, talk to its guest, freeze it, kill it."""

from ephemeral_sandboxd.runtimes.box import Answer, Box, FileProblem, Gone
from ephemeral_sandboxd.runtimes.protocol import Runtime, Size, Usage

__all__ = ["Answer", "Box", "FileProblem", "Gone", "Runtime", "Size", "Usage"]
