"""Which classes of Python packages derive from which: `classes.npz` beside this file.

`python notebooks/data/classes.py` makes it anew, from the packages that are installed. All public classes of some
modules and what they derive from, `object` left out, are numbered:

- `names [n]`: the module and name of each class;
- `pairs [m, 2]`: a class and one that it derives from, directly or not;
- `direct [m]`: whether it does so directly.
"""

import importlib
import inspect
from pathlib import Path

import numpy as np

MODULES = """builtins collections.abc io json ast unittest logging socket http email concurrent.futures asyncio ctypes
decimal xml.dom numbers sklearn.base sklearn.linear_model sklearn.ensemble sklearn.cluster sklearn.decomposition
sklearn.svm sklearn.tree networkx matplotlib.artist matplotlib.patches matplotlib.collections matplotlib.ticker
matplotlib.scale matplotlib.text numpy scipy.stats skimage.transform"""


def main():
    modules = [importlib.import_module(name) for name in MODULES.split()]
    public = [
        value for module in modules for name, value in inspect.getmembers(module, inspect.isclass) if name[0] != "_"
    ]
    found = {base: None for one in public for base in one.__mro__[::-1] if base is not object}
    number = {one: i for i, one in enumerate(found)}
    pairs = [(one, base) for one in found for base in one.__mro__[1:] if base is not object]
    path = Path(__file__).with_suffix(".npz")
    np.savez_compressed(
        path,
        names=[f"{one.__module__}.{one.__qualname__}" for one in found],
        pairs=np.uint16([(number[one], number[base]) for one, base in pairs]),
        direct=np.array([base in one.__bases__ for one, base in pairs]),
    )
    print(path.name, len(found), "classes", len(pairs), "pairs", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
