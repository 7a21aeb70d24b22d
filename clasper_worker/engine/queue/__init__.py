"""How turns come from the broker: taken atomically, in lanes, under leases."""
