"""The programs behind `PythonExecutor`: a supervisor, a zygote, and a child per call.

    trainer ── supervisor ── zygote ── child, child, child …
               the queue,    isolated,  one call or one session each
               deadlines,    preloaded,
               output        forks

The trainer never forks; it starts the supervisor, which starts the zygote. Both are separate
programs that run in a bare interpreter (`__main__.py`), so this package imports only the standard
library and itself.
"""
