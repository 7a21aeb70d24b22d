"""Several worker processes supervised as one: what ``clasper worker --processes N`` runs."""
