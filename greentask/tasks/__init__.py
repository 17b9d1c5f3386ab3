"""Tasks: what can be called, how its arguments are bound, and what a running one may ask and tell."""
