"""Tools that the model may call, and how their calls are carried out."""
