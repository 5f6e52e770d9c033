"""What is on disk: whole.py writes files that are whole or not there, arrays.py those of arrays,
and weights.py the trained ones; names.py says what files are called, lock.py holds a folder for
one training, compile_cache.py keeps what XLA has compiled, digest.py tells code from other code,
and figures.py saves pictures."""
