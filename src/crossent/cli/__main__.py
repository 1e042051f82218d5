"""`python -m crossent.cli`."""

from . import main

main()
