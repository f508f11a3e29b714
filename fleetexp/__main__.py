"""`python -m fleetexp`: the same as the command `fleetexp`."""

from __future__ import annotations

from fleetexp.cli.main import main

if __name__ == "__main__":
    main()
