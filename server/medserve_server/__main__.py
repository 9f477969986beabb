"""Runs the server: `python -m medserve_server`."""

from medserve_server.cli import main

if __name__ == "__main__":
    main()
