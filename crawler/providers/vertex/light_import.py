"""Imports a module of a large package without running the package's own `__init__`.

Rule: nobody else sees a difference. The modules are the real ones, and a package runs its
`__init__` as soon as somebody asks it for anything that is not imported yet.

The `__init__` of google.cloud.aiplatform_v1 imports the clients of some thirty services, 0.6 s of
CPU, and a run needs the messages of one.
"""

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _Unopened(ModuleType):
    """A package whose `__init__` has not run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if name != "__all__" and find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        object.__setattr__(self, "__class__", ModuleType)
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            object.__setattr__(self, "__class__", _Unopened)
            raise
        return getattr(self, name)


def import_from(package: str, *names: str) -> list[ModuleType]:
    """Import modules of a package, passing by its `__init__` and that of its parent.

    The parent is passed by, too, because it is what imports the package's siblings.
    """
    for name in (package.rpartition(".")[0], package):
        if name not in sys.modules:
            _leave_unopened(name)
    return [importlib.import_module(f"{package}.{name}") for name in names]


def _leave_unopened(name: str) -> None:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"there is no package {name}", name=name)
    package = module_from_spec(spec)
    object.__setattr__(package, "__class__", _Unopened)
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, package)
