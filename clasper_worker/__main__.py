"""``python -m clasper_worker`` is the ``clasper`` command."""

from clasper_worker.cli import main

main()
