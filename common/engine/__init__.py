"""One compiled call for an update: plain.py on public API, readable alone; fast.py, the same faster."""
