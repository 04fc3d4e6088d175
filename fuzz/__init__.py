"""Fuzzing: for every parser that a stranger reaches, a target that states what must hold, and a small corpus.

* ``python -m fuzz`` runs targets, each in a process of its own, and tells what they found (``make fuzz``);
* ``python -m fuzz.seeds`` writes the corpus anew, from the simulated platform;
* :mod:`fuzz.targets` has the targets; ``check(data)`` of each is a plain function that needs no fuzzer;
* :mod:`fuzz.target` says what a target is, :mod:`fuzz.mutation` how inputs are bent where bytes alone lead nowhere;
* :mod:`fuzz.world` is the platform, and the keys, that all inputs are about: the same bytes on every machine.

How to: ``docs/how-to/fuzz.md``.
"""
