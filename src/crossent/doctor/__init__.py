"""Wrong pairings and unstable formulas, found in code that is not run: `crossent lint` and `crossent rule`.

Only the standard library is used, and Typer for the commands. Files are parsed by `ast`, whose positions are exact to
the byte, so a fix is a text put in the place of another, and nothing else in the file moves.
"""
