"""``python -m ensconce`` is the command ``ensconce``."""

from ensconce.cli.main import main

main()
