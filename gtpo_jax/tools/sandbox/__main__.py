"""Starts one of the programs: `python -s -S -P -B …/sandbox/__main__.py PROGRAM FD`.

PROGRAM is `supervisor`, `zygote` or `survey`; FD is the descriptor of the socket to its parent. The
package is loaded from this folder under its own name, so that neither the library nor JAX is
imported and `sys.path` stays bare.
"""

import importlib
import importlib.util
import os
import sys


def main() -> None:
    name, folder = "sandbox", os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    program, fd = sys.argv[1:]
    importlib.import_module(f"{name}.{program}").main(int(fd))


if __name__ == "__main__":
    main()
