"""What turns and other jobs used of models: counted by workers, read by the shim and commands."""
