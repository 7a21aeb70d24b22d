"""How a job ends: result, error, revocation, dead letter, and who is notified of it."""
