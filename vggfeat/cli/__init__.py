"""The command line: options → one call → print. Results on stdout, everything else on stderr."""

from vggfeat.cli import commands, shelves
from vggfeat.cli.group import main

__all__ = ["commands", "main", "shelves"]
