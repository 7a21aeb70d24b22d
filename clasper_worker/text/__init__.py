"""Text and JSON from outside: bounded, and repaired where it is only passed on."""
