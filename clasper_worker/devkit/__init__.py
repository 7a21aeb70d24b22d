"""Stand-ins for what a deployment brings: model, backend, and everything on one machine.

For `clasper up`, the demo, tests and development; of the package only `cli` imports it.
"""
