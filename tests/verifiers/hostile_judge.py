"""A judge for the tests of the pool: texts say what happens to the worker, and when."""

import os
import pathlib
import time


def judge(record, known):
    _do(record["expected"])
    known()
    _do(record["given"])
    survived = record["given"].startswith("once ")
    return "right" if survived or record["expected"] == record["given"] else "wrong"


def _do(text):
    if text == "hang":
        time.sleep(600)
    elif text == "exit":
        os._exit(1)
    elif text == "memory":
        bytearray(1 << 40)
    elif text == "raise":
        raise RuntimeError("a bug")
    elif text.startswith("once "):  # somebody else kills the worker, while the folder exists
        try:
            pathlib.Path(text.removeprefix("once ")).rmdir()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), 9)
