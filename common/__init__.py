"""What the chapter takes for granted: flags and presets; networks and noise, of which agents are
built; engine/, one compiled call for an update; tasks/, what the chapter calls gym; training/, what
stands around the loops; pendulum/, what is known of Pendulum alone; files/, what is on disk;
comparison/, of compare.py alone; process and errors, what a script says and what stops it."""
