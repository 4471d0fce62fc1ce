"""What one thread of this processor can do: loops in C, compiled here where there is a compiler."""

import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

_ARRAY = np.ctypeslib.ndpointer(np.float32, flags="C")


@functools.cache
def _library():
    with tempfile.TemporaryDirectory() as folder:
        built = pathlib.Path(folder, "limit.so")
        options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        subprocess.run(
            [shutil.which("cc"), *options, "-o", built, pathlib.Path(__file__).with_suffix(".c"), "-lm"], check=True
        )
        return ctypes.CDLL(str(built))


def loss(name):
    """The loss of that name in limit.c and its gradient, as a function of two arrays; None without a compiler.

    The gradient has its memory once and for all: fresh pages cost this loss four times its arithmetic.
    """
    if shutil.which("cc") is None:
        return None

    room = functools.cache(lambda *shape: np.empty(shape, np.float32))

    def run(student, teacher):
        compiled = getattr(_library(), name)
        compiled.restype, compiled.argtypes = ctypes.c_float, [_ARRAY] * 4 + [ctypes.c_long] * 2
        rows, k = student.shape
        gradient = room(rows, k)
        return compiled(student, teacher, gradient, room(2, k), rows, k), gradient

    return run
