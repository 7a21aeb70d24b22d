"""Every Celery task: read the arguments, call one function, let its typed error through.

Importing this registers all that are in its modules, and the remote-control commands (`control`).
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
