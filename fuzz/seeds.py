"""Write the corpus: ``python -m fuzz.seeds``.

Everything in it comes from the simulated platform and the keys of :mod:`fuzz.world`; files that are called
``found-...`` came from findings, and stay.
"""

from __future__ import annotations

from pathlib import Path

from fuzz.targets import load, names

__all__ = ["CORPUS", "FOUND", "main"]

CORPUS = Path(__file__).parent / "corpus"
FOUND = "found-"
"""What the names of inputs begin with that made a target fail once."""


def main() -> None:
    """Write every target's seeds, and remove those that it has no more."""
    for name in names():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        made = load(name).seeds()
        for old in folder.iterdir():
            if old.name not in made and not old.name.startswith(FOUND):
                old.unlink()
        for seed, data in made.items():
            (folder / seed).write_bytes(data)


if __name__ == "__main__":
    main()
