"""The HTTP shim: enqueue and follow turns from any language."""
