"""The checks, by section of the contract: importing a module registers its own."""

from importlib import import_module

_MODULES = (
    "discovery",
    "auth",
    "records",
    "isolation",
    "idempotency",
    "pages",
    "errors",
    "dispatch",
    "optional",
)


def load() -> None:
    """Register all checks, in the report's order."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
