"""The processes of ``clasper up``: everything on one machine, in the foreground."""
