"""One compiled call for an update: plain.py, public API and readable alone; fast.py, quicker;
variables.py says of which variables an agent consists."""
