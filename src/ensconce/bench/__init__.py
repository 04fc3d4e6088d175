"""The load generator: asks servers of ours and of others as hard as it is told to, and measures with one ruler.

``schedule`` says when requests are due, ``run`` sends them and keeps ``tally`` (``histogram``, ``timeline``),
``targets`` are whom they go to, ``inputs`` what is in them; ``report`` and ``page`` say what came of it.
"""
