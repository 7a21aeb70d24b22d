"""The model hosts: which a name means, and how each is asked."""
