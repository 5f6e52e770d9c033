"""What the chapter calls gym: making.py goes from a name to an environment, environment.py gives it
the chapter's interface, spaces.py says what networks see of its spaces, film.py films an episode."""
