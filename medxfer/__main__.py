"""`python -m medxfer`: the same as the command `medxfer`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
