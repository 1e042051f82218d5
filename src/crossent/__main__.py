"""``python -m crossent`` is the command `crossent`."""

from .cli import main

if __name__ == "__main__":
    main()
