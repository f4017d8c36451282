"""layout with all of its modules loaded, and a fork of this process for each command that it is told to run.

A command starts as a new process does, with its own arguments, directory and files, but for the imports:
they would take longer than most commands. Reads {"words": [...], "out": PATH, "err": PATH} from stdin, one
a line, and writes the exit status, as a shell counts it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys


def load() -> None:
    """Import every module of layout, but for those of Linux: a command that wants one is to fail."""
    import layout

    paths = [(layout.__path__, "layout.")]
    while paths:
        for module in pkgutil.iter_modules(*paths.pop()):
            if module.name.endswith("linux") or module.name == "layout.__main__":
                continue
            try:
                found = importlib.import_module(module.name)
            except ImportError:  # the shim's: it needs one of those
                continue
            if module.ispkg:
                paths.append((found.__path__, f"{module.name}."))


def serve() -> list[str]:
    """Answer until the end of the input; in a child, return the words of its command."""
    while line := sys.stdin.buffer.readline():
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for fd, path in enumerate((os.devnull, task["out"], task["err"])):
                opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(opened, fd)
                os.close(opened)
            return task["words"]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(1, b"%d\n" % (code if code >= 0 else 128 - code))
    sys.exit(0)


if __name__ == "__main__":
    gc.disable()
    load()
    gc.freeze()
    words = serve()
    gc.enable()
    sys.path[0] = os.getcwd()
    from layout import __main__ as program

    sys.argv = [program.__file__, *words]
    program.main()
