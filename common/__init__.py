"""Everything the chapter takes for granted and does not teach.

Nothing in this package knows an algorithm; nothing in the scripts knows how a
file is written, a flag is parsed or a function is compiled.
"""
