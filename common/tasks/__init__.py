"""What the chapter calls gym: making.py goes from a name to an environment, environment.py gives it
the chapter's interface, spaces.py says what the networks see of it, film.py films an episode."""
