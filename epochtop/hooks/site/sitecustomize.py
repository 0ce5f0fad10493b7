"""Start of every Python process below `epochtop run`, whose PYTHONPATH begins with this folder.

Starts the hooks of epochtop, then runs the `sitecustomize` that this file hides. Must parse under any Python, must leave
`sys.path` as it would be without it, and must never stop the interpreter.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(os.path.dirname(FOLDER))


class PackageFinder(object):  # noqa: UP004
    """Finds the package `epochtop` in its own folder, without putting its neighbors on `sys.path`."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        # type: (str, object, object) -> object
        """The package `epochtop`; None for any other module."""
        if name != "epochtop":
            return None
        from importlib.util import spec_from_file_location

        file = os.path.join(PACKAGE, "__init__.py")
        return spec_from_file_location(name, file, submodule_search_locations=[PACKAGE])


def start_hooks():
    # type: () -> None
    """Start the hooks, or say on standard error why they do not start."""
    try:
        if sys.version_info >= (3, 9) and os.environ.get("EPOCHTOP_RUN"):
            sys.meta_path.insert(0, PackageFinder)  # type: ignore[arg-type]
            from epochtop.hooks.start import start

            start()
    except Exception as error:
        sys.stderr.write("epochtop: no hooks in this process: %s: %s\n" % (type(error).__name__, error))  # noqa: UP031


def run_hidden_sitecustomize():
    # type: () -> None
    """Run the `sitecustomize` of the environment, if it has one."""
    if not hasattr(sys, "implementation"):  # Python 2
        return
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != FOLDER]
start_hooks()
run_hidden_sitecustomize()
